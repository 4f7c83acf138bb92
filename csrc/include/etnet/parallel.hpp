// A parallel loop on std::thread. No OpenMP: a second libgomp beside torch's gives wrong results and lost threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace etnet {

// Who takes part in a loop. It outlives the loop for threads that the system starts too late.
class Participants {
  public:
    bool enter() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (closed_) return false;
        ++present_;
        return true;
    }
    void leave() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--present_ == 0) left_.notify_one();
    }
    // Nobody enters any more; returns when those inside have left, and what they wrote is visible.
    void close() {
        std::unique_lock<std::mutex> lock(mutex_);
        closed_ = true;
        left_.wait(lock, [this] { return present_ == 0; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable left_;
    int present_ = 0;
    bool closed_ = false;
};

// Calls body(begin, end, worker) for consecutive pieces of at most `grain` items that together cover 0..count-1.
//
// `worker` is in 0..threads-1 and no two calls with the same worker overlap, so it may index scratch memory. Which
// worker gets which piece changes from run to run: results that must not depend on it are written per item, and summed
// after the loop. `body` must not throw. The caller does without threads that the system refuses or that do not run
// before the last piece is taken, which on a busy machine takes milliseconds.
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
    if (workers == 1) return work(0);
    const auto participants = std::make_shared<Participants>();
    // `work` lies on the caller's stack: it may be touched only between enter and leave.
    const auto take_part = [participants, &work](int worker) {
        if (!participants->enter()) return;
        work(worker);
        participants->leave();
    };
    try {
        for (int worker = 1; worker < workers; ++worker) std::thread(take_part, worker).detach();
    } catch (const std::exception&) {
        // The pieces are handed out one by one, so the workers that did start finish the loop.
    }
    work(0);
    participants->close();
}

}  // namespace etnet
