// PyTorch's threads are used: what the runtime gives the host to do in parallel runs on as many as PyTorch is set to.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>

#include "frontends/torch/host.h"

namespace heddle::testing {
namespace {

TEST(Host, RunsTasksOnPyTorchsThreads) {
    const int before = at::get_num_threads();
    const auto host = torch_host(at::kCPU);
    for (int threads : {1, 2}) {
        at::set_num_threads(threads);
        EXPECT_EQ(host->threads(), threads);
        std::mutex mutex;
        std::set<std::thread::id> seen;
        std::multiset<int> tasks;
        host->parallel(threads, [&](int task) {
            std::lock_guard lock(mutex);
            seen.insert(std::this_thread::get_id());
            tasks.insert(task);
        });
        EXPECT_EQ(seen.size(), static_cast<std::size_t>(threads));
        EXPECT_EQ(tasks, threads == 1 ? std::multiset<int>{0} : (std::multiset<int>{0, 1}));
    }
    at::set_num_threads(before);
}

}  // namespace
}  // namespace heddle::testing
