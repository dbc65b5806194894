#pragma once

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace praas::worker {

/// A thread that takes no signals: those of a process are for its owner (Node's signal handling runs on its main
/// thread).
template <typename Run>
[[nodiscard]] std::thread StartThread(const char* name, Run run) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(run));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread.native_handle(), name);
  return thread;
}

}  // namespace praas::worker
