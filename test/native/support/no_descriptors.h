#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace praas::test {

/// While it lives, this OS process can open nothing.
class NoDescriptors {
 public:
  NoDescriptors() {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit none{3, before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;

  /// Why that cannot be tried here; nullptr: it can.
  [[nodiscard]] static const char* Obstacle() noexcept {
#if defined(__SANITIZE_ADDRESS__)
    return "UndefinedBehaviorSanitizer looks at objects through a pipe, for which it needs descriptors";
#else
    return nullptr;
#endif
  }

 private:
  rlimit before_{};
};

}  // namespace praas::test
