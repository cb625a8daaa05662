// Sizes by slot have the values of sizes by name; short lists behave like vectors.
#include "runtime/sizes.h"

#include <gtest/gtest.h>

#include <random>

namespace heddle {
namespace {

TEST(SizeExpr, HasTheValueOfItsDim) {
    SizeNames names({"b"});
    for (auto n : {"a", "b", "c"}) names.add(n);
    ASSERT_EQ(names.list(), (std::vector<std::string>{"b", "a", "c"}));
    for (auto text : {"0", "7", "-3", "a", "2*a", "a*b-c", "a*a*b+3*c-1"}) {
        Dim d = parse_dim(text);
        SizeExpr e(d, names);
        for (std::int64_t a : {0, 1, 5}) {
            Sizes sizes{{"a", a}, {"b", 3}, {"c", a + 2}};
            SizeValues values = names.values(sizes);
            EXPECT_EQ(e(values.data()), d.eval(sizes)) << text;
            EXPECT_TRUE(e.known(values.data()));
            EXPECT_EQ(names.named(values), sizes);
        }
        std::vector<std::string> used;
        d.names(used);
        EXPECT_EQ(e.known(SizeValues(3, kUnknown).data()), used.empty()) << text;
    }
    EXPECT_THROW(names.slot("d"), Bug);
}

template <std::size_t N>
void like_vector(unsigned seed) {
    std::mt19937 rng(seed);
    using List = Small<std::int64_t, N>;
    List list;
    std::vector<std::int64_t> model;
    for (int step = 0; step < 300; ++step) {
        switch (rng() % 6) {
            case 0: list.push_back(step), model.push_back(step); break;
            case 1: {
                std::size_t n = rng() % 9;
                list.resize(n, step), model.resize(n, step);
                break;
            }
            case 2: {
                List copy(list);
                list = List{1, 2, 3, 4, 5, 6};
                list = copy;
                break;
            }
            case 3: {
                List taken(std::move(list));
                EXPECT_TRUE(list.empty());  // NOLINT: a list that was moved from is empty, by its own law
                list.push_back(-1);
                list = std::move(taken);
                break;
            }
            case 4: list = List(model); break;
            default: {
                List& same = list;
                list = same;
            }
        }
        ASSERT_EQ(std::vector<std::int64_t>(list.begin(), list.end()), model);
        ASSERT_EQ(list == List(model), true);
    }
}
TEST(Small, IsAVector) {
    for (unsigned seed = 0; seed < 20; ++seed) like_vector<1>(seed), like_vector<4>(seed), like_vector<16>(seed);
}

}  // namespace
}  // namespace heddle
