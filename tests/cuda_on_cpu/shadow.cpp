// Cells and the arena; see shadow.h.
#include "tests/cuda_on_cpu/shadow.h"

#include <sys/mman.h>

namespace heddle::cuda_on_cpu {

void Unmap::operator()(Cell* p) const { munmap(p, n * sizeof(Cell)); }
void Cells::resize(std::size_t n) {
    cells.reset();
    if (n == 0) return;
    void* p = mmap(nullptr, n * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::runtime_error("no address space for what is known of a buffer");
    cells = {static_cast<Cell*>(p), Unmap{n}};
}
Cells::Conflict Cells::touch(std::size_t k, const Clock& now, How how, std::uint32_t from) {
    Cell& c = cells[k];
    if (c.life != life) c = {}, c.life = life, c.initialised = initialised;
    const bool reads = how == How::read || how == How::relaxed_read || how == How::atomic, writes = how != How::read && how != How::relaxed_read;
    const bool relaxed = how == How::atomic || how == How::relaxed_read || how == How::relaxed_write;
    if (reads && !c.initialised) return {"uninitialised", {}, false};
    auto clashes = [&](const Stamp& s) { return s.set && !(relaxed && s.relaxed) && !now.after(s); };
    if (clashes(c.write)) return {"race", c.write, true};
    if (!writes) {
        Stamp mine = now.stamp(from, relaxed);
        if (!c.read.set || now.after(c.read)) c.read = mine;
        else c.other_read = mine;
        return {};
    }
    for (const Stamp& s : {c.read, c.other_read})
        if (clashes(s)) return {"race", s, false};
    c.write = now.stamp(from, relaxed);
    c.read = c.other_read = {};
    c.initialised = true;
    return {};
}

Arena& Arena::get() {
    static Arena a;
    return a;
}
Arena::Arena() : usable_(kMost) {
    void* p = mmap(nullptr, kSpan * kMost, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::runtime_error("no address space for the buffers of kernels");
    base_ = static_cast<char*>(p);
}
char* Arena::place(std::size_t k, std::size_t bytes) {
    if (k >= kMost) throw std::runtime_error("a kernel with more buffers than the arena has spans");
    char* first = base_ + k * kSpan + kSpan / 2;
    if (bytes > usable_[k]) {
        usable_[k] = (bytes + 4095) / 4096 * 4096;
        if (mprotect(first, usable_[k], PROT_READ | PROT_WRITE) != 0) throw std::runtime_error("no memory for a buffer of a kernel");
    }
    return first;
}
char* place(std::size_t k, std::size_t bytes) { return Arena::get().place(k, bytes); }
void forget(std::size_t k, std::size_t bytes) {
    if (madvise(place(k, bytes), bytes, MADV_DONTNEED) != 0) throw std::runtime_error("can't clear a buffer of a kernel");
}

}  // namespace heddle::cuda_on_cpu
