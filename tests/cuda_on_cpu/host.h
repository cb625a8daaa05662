// What a compiled text asks of the machine that runs it. Law: included by both sides, so it includes nothing itself.
#pragma once

namespace heddle::cuda_on_cpu {

struct Index {
    unsigned x, y, z;
};
using Word = unsigned long long;
enum class How : int { read, write, relaxed_read, relaxed_write, atomic };  // relaxed: a volatile access, which PTX orders like a relaxed atomic

struct Host {
    Index thread, block, threads, blocks;
    void (*access)(const void* address, unsigned bytes, How, const void* from);  // before it is made; from: the return address of the code
    void (*float_atomic)(const void* address, const void* before, unsigned bytes);  // this one has added floats, in an order that nobody promises
    void (*meet_block)(int line);
    const Word* (*meet_lanes)(const char* what, int line, unsigned mask, Word mine, bool orders_memory);  // what each lane brought
    void (*fence)();
    void (*sleep)();
    void (*pause)();                                                             // another thread may go first
    void (*fail)(const char* what, int line);
};

}  // namespace heddle::cuda_on_cpu
