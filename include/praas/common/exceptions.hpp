/**
 * The exceptions of PraaS' C++ API, by their names there. All derive from PraaSException, and one that leaves a
 * function makes its call fail with the text of what().
 */
#ifndef PRAAS_COMMON_EXCEPTIONS_HPP
#define PRAAS_COMMON_EXCEPTIONS_HPP

#include <stdexcept>
#include <string>

namespace praas::common {

/** Base of all; thrown itself when no other name fits. what() starts with what was tried. */
struct PraaSException : std::runtime_error {
  explicit PraaSException(const std::string& message) : std::runtime_error(message) {}
};

/** Not possible here: messages and calls to other processes. */
struct NotImplementedError : PraaSException {
  NotImplementedError() : PraaSException("Not implemented") {}
  explicit NotImplementedError(const std::string& message) : PraaSException(message) {}
};

/** A message or a result of another function did not come: timeout, cancellation, or the callee's worker died. */
struct FunctionGetFailure : PraaSException {
  using PraaSException::PraaSException;
};

/** No memory for a buffer, a result, a message or state; or more than the process allows in one piece. */
struct FailedAllocationError : PraaSException {
  using PraaSException::PraaSException;
};

/** Never thrown by these headers, like the four below: for functions that throw or catch them. */
struct InvalidConfigurationError : PraaSException {
  using PraaSException::PraaSException;
};
struct InvalidJSON : PraaSException {
  using PraaSException::PraaSException;
};
struct InvalidProcessState : PraaSException {
  using PraaSException::PraaSException;
};
struct ObjectExists : PraaSException {
  using PraaSException::PraaSException;
};
struct ObjectDoesNotExist : PraaSException {
  using PraaSException::PraaSException;
};

}  // namespace praas::common

#endif
