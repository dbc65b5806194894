// A worker executable for tests of the host.

#include <cstdlib>

#include "host/test_worker.h"

int main() {
  const char* fd = std::getenv("PRAAS_WORKER_FD");
  if (fd == nullptr) return 64;
  return praas::test::TestWorker::Run(praas::UniqueFd(std::atoi(fd)), nullptr);
}
