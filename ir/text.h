// Graphs as text, both ways. Law: parse(print(g)) == g for a graph whose inputs come first, and print is deterministic.
//
//   graph  = "graph" "@" name "(" [input {"," input}] ")" "{" {line} "return" [value {"," value}] "}"
//   input  = value [string] ":" type
//   line   = value "=" op [value {"," value}] {"," key "=" attr} ":" type {"," type} ["#" source line]
//   op     = a row of ir/ops.def, or the name of a call, which has a dot: aten.mul.Tensor
//   type   = dtype "[" [size {"," size}] "]"         size = integers and names with + - *
//   attr   = none | true | false | size | real | string | $k | "[" attr {"," attr} "]"
#pragma once
#include "ir/graph.h"
#include "ir/program.h"

namespace heddle {

std::string print(const Graph&);
std::string print_line(const Graph&, Id);  // one node, numbered by its id, without newline
Graph parse(std::string_view text);        // throws Error "line:column: expected ..."
std::string print(const Schedule&);
std::string print(const Program&);         // steps in order: launches with their nests and schedules, calls, reads: size u0 = %91

}  // namespace heddle
