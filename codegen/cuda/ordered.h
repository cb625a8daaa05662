// Text of sums that come out the same in whatever order their terms are added, and of sums in shared memory.
//
// A launch with such sums has three stages for one: every nest runs once to find the largest exponent of each element's terms, once more to add
// the terms as whole numbers, and what they came to is rounded. The unit of an element is 2^-room of the power of two above its largest term, where
// room = 62 - bits of the number of additions there can be, so that 64 bits hold them all; a double has two such words, a term twice that room.
// Law: a term's rounding is at most half a unit. Of up to 2^k terms the sum is then off by 2^(2k - 62) of the largest at most, which is 2^(38 - k)
// times less than what floats added one by one can lose (Source: Higham, Accuracy and Stability, 4.2), and for k < 19 less than a float's own
// rounding. Infinities and NaN are counted instead, and come out as sums of them do; the last rounding gives what is too large.
#pragma once

namespace heddle::cuda {

extern const char kOrdered[], kNearText[];

}  // namespace heddle::cuda
