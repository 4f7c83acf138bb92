// A parallel loop on std::thread. No OpenMP: a second libgomp beside torch's gives wrong results and lost threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace etnet {

// Calls body(begin, end, worker) for consecutive pieces of at most `grain` items that together cover 0..count-1.
//
// `worker` is in 0..threads-1 and no two calls with the same worker overlap, so it may index scratch memory. Which
// worker gets which piece changes from run to run: results that must not depend on it are written per item, and summed
// after the loop. `body` must not throw. A thread that the system refuses is done without.
template <class Body>
void parallel_for(std::int64_t count, std::int64_t grain, int threads, const Body& body) {
    if (count <= 0) return;
    const std::int64_t pieces = (count + grain - 1) / grain;
    const int workers = static_cast<int>(std::min<std::int64_t>(std::max(threads, 1), pieces));
    std::atomic<std::int64_t> next{0};
    const auto work = [&](int worker) {
        for (std::int64_t piece = next++; piece < pieces; piece = next++) {
            body(piece * grain, std::min(count, (piece + 1) * grain), worker);
        }
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(workers - 1));
    try {
        for (int worker = 1; worker < workers; ++worker) others.emplace_back(work, worker);
    } catch (const std::system_error&) {
        // The pieces are handed out one by one, so the workers that did start finish the loop.
    }
    work(0);
    for (std::thread& other : others) other.join();
}

}  // namespace etnet
