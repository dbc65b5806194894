/**
 * PraaS' C++ functions, after a recompile:
 *
 *   extern "C" int reverse(praas::process::runtime::Invocation invocation, praas::process::runtime::Context& context) {
 *     auto input = invocation.args[0].str();
 *     auto& output = context.get_output_buffer(input.size());
 *     std::copy(input.rbegin(), input.rend(), reinterpret_cast<char*>(output.ptr));
 *     output.len = input.size();
 *     return 0;
 *   }
 *
 * A function fails by returning something else than 0, or by an exception. Including this header makes the library one
 * of such functions: each exported extern "C" function of it must have this signature.
 */
#ifndef PRAAS_PROCESS_RUNTIME_CONTEXT_HPP
#define PRAAS_PROCESS_RUNTIME_CONTEXT_HPP

#include <praas/praas.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <praas/common/exceptions.hpp>
#include <praas/process/runtime/buffer.hpp>
#include <praas/process/runtime/internal/buffer.hpp>
#include <praas/process/runtime/invocation.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/** See PRAAS_ADAPTER_SYMBOL in praas.h. Defined below; every translation unit has it, the linker keeps one. */
extern "C" PRAAS_EXPORT int praas_adapter_v1(void* symbol, praas_context* context);

namespace praas::process::runtime {

/**
 * The process as a function sees it. One per invocation, valid until the function returns, for the thread that runs it.
 *
 * Whatever a method cannot do is a praas::common::PraaSException; the methods name the ones that derive from it. Names
 * and keys are 1 … 255 bytes of UTF-8. Every wait ends with the deadline of the invocation.
 */
struct Context {
  /** This process, as destination, source, or process of a call. */
  static constexpr std::string_view SELF = PRAAS_SELF;
  /** Any process, as source. */
  static constexpr std::string_view ANY = PRAAS_ANY;

  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // --- messages ---

  /**
   * Puts a message into the mailbox of a process; the bytes are copied.
   * @param destination SELF or process_id(). @throws NotImplementedError for another process.
   */
  void put(std::string_view destination, std::string_view msg_key, std::byte* ptr, std::size_t size) {
    check(praas_put(context_, text(destination).c_str(), text(msg_key).c_str(), ptr, size), "put", msg_key);
  }
  /** The same with the first `len` bytes of a buffer, of whatever origin. */
  void put(std::string_view destination, std::string_view msg_key, Buffer buf) {
    put(destination, msg_key, buf.ptr, buf.len);
  }

  /**
   * Takes the oldest message under a key out of this process's mailbox, and waits for one.
   * @param source SELF, ANY or process_id(). @throws NotImplementedError for another process.
   * @throws FunctionGetFailure when none has come by the deadline.
   */
  Buffer get(std::string_view source, std::string_view msg_key) {
    praas_reply message{};
    check<common::FunctionGetFailure>(praas_get(context_, text(source).c_str(), text(msg_key).c_str(), 0, &message),
                                      "get", msg_key);
    return take(message);
  }

  // --- state ---

  /** The keys of the process's state, in byte order. */
  std::vector<std::string> state_keys() {
    struct Collected {
      std::vector<std::string> keys;
      std::exception_ptr error;
    } collected;
    // An exception must not pass through the worker, which calls this function.
    const auto visit = [](void* argument, const praas_key_info* info) -> int {
      auto& into = *static_cast<Collected*>(argument);
      try {
        into.keys.emplace_back(info->key);
        return 0;
      } catch (...) {
        into.error = std::current_exception();
        return 1;
      }
    };
    const int status = praas_state_keys(context_, "", visit, &collected);
    if (collected.error) std::rethrow_exception(collected.error);
    check(status, "state_keys", "");
    return std::move(collected.keys);
  }

  /** Replaces the value of a key by the first `len` bytes of a buffer, of whatever origin. */
  void state(std::string_view msg_key, Buffer buf) {
    check(praas_state_set(context_, text(msg_key).c_str(), buf.ptr, buf.len, nullptr), "state", msg_key);
  }
  /** Replaces the value of a key by a text. */
  void state(std::string_view msg_key, std::string_view data) {
    check(praas_state_set(context_, text(msg_key).c_str(), data.data(), data.size(), nullptr), "state", msg_key);
  }
  /** A copy of the value of a key. Null when there is no such key, or it has no bytes. */
  Buffer state(std::string_view msg_key) {
    const void* data = nullptr;
    std::size_t bytes = 0;
    const int status = praas_state_view(context_, text(msg_key).c_str(), &data, &bytes, nullptr);
    if (status == PRAAS_ERR_STATE_NOT_FOUND) return {};
    check(status, "state", msg_key);
    return copy(data, bytes);
  }

  // --- calls ---

  /**
   * Calls a function of this process, in any language, and waits for its result.
   * @param process_id SELF or process_id(). @throws NotImplementedError for another process.
   * @param function_name Its name. @param invocation_id Any text; the `key` of the result.
   * @returns Also when the function failed; see InvocationResult.
   * @throws FunctionGetFailure when there is no such function, it did not end by the deadline, or its worker died.
   */
  InvocationResult invoke(std::string_view process_id, std::string_view function_name, std::string_view invocation_id,
                          Buffer input) {
    if (process_id != SELF && process_id != praas_process_id(context_)) {
      throw common::NotImplementedError("invoke(\"" + std::string(process_id) + "\", \"" + std::string(function_name) +
                                        "\"): functions of other processes cannot be called; pass SELF");
    }
    InvocationResult result;
    result.key = invocation_id;
    result.function_name = function_name;
    praas_reply reply{};
    const int status = praas_invoke(context_, text(function_name).c_str(), input.ptr, input.len, 0, &reply);
    if (status == PRAAS_ERR_FUNCTION_THREW) {
      const std::string_view message = praas_error_message(context_);
      result.return_code = return_code(message);
      result.payload = copy(message.data(), message.size());
      return result;
    }
    check<common::FunctionGetFailure>(status, "invoke", function_name);
    result.payload = take(reply);
    return result;
  }

  // --- ids ---

  /** Names this invocation among all of its worker. */
  std::string invocation_id() const { return invocation_id_; }
  std::string process_id() const { return praas_process_id(context_); }
  /** The processes that can be talked to: this one. */
  const std::vector<std::string>& active_processes() const { return active_processes_; }
  /** Always empty: processes are not swapped out. */
  const std::vector<std::string>& swapped_processes() const { return swapped_processes_; }

  // --- output ---

  /**
   * Memory at the result's final place, to be filled; set `len` of the buffer, or serialize() into it. The reference is
   * the result itself and lasts as long as the context.
   *
   * @param size At least so many bytes, up to the process's maxContiguous. 0: the buffer as it is, of 5 MiB when there
   *   is none yet, less when memory is short. A larger size than before gives other memory, with nothing in it.
   * @throws FailedAllocationError
   */
  Buffer& get_output_buffer(std::size_t size = 0) {
    if (output_.null() || size > output_.size) output_ = own_output(size);
    return output_;
  }

  /**
   * Makes the first `len` bytes of a buffer the result. Input (`args[0]`, or a part of it) and the output buffer are
   * not copied. Other memory must stay as it is until the function has returned.
   */
  void set_output_buffer(Buffer buf) { output_ = buf; }

  /**
   * Copies bytes to position `pos` of the output buffer, whose `len` grows to `pos + len` at least.
   * @throws PraaSException when that is more than its size: 5 MiB, or what get_output_buffer(size) was asked for.
   */
  void write_output(const std::byte* ptr, std::size_t len, std::size_t pos) {
    if (len > SIZE_MAX - pos) throw common::PraaSException("write_output: position and length are out of range");
    // The result may have been set to other memory, the input for example, which is not to be written.
    if (own_.null() || output_.ptr != own_.ptr) {
      output_ = own_output(pos + len > kDefaultOutputBytes ? pos + len : 0);
    }
    if (pos + len > own_.size) {
      throw common::PraaSException("write_output: bytes " + std::to_string(pos) + " to " + std::to_string(pos + len) +
                                   " do not fit into the output buffer of " + std::to_string(own_.size) +
                                   " bytes; call get_output_buffer(size) first");
    }
    if (len > 0) std::memcpy(own_.ptr + pos, ptr, len);
    output_.len = std::max(output_.len, pos + len);
  }

  /** Memory of `size` bytes that lasts until the function returns. @throws FailedAllocationError */
  Buffer get_buffer(std::size_t size) {
    // Of 0 bytes as well, so that the buffer is not null.
    void* memory = praas_buffer(context_, std::max<std::size_t>(size, 1));
    if (memory == nullptr) no_memory("get_buffer", size);
    return {static_cast<std::byte*>(memory), 0, size};
  }

  /** The result as it stands. */
  internal::BufferAccessor<const char> as_buffer() const {
    return {reinterpret_cast<const char*>(output_.ptr), output_.len};
  }

  // --- called before and after the function; functions need not ---

  /** Gives the invocation its id and starts with an empty result. */
  void start_invocation(const std::string& invoc_id) {
    invocation_id_ = invoc_id;
    output_ = own_;
    output_.len = 0;
  }
  /** Forgets the result. Memory of get_buffer() lasts until the function returns all the same. */
  void end_invocation() { output_ = {}; }

 private:
  friend int ::praas_adapter_v1(void* symbol, praas_context* context);

  static constexpr std::size_t kDefaultOutputBytes = std::size_t{5} << 20;
  static constexpr std::size_t kLeastDefaultOutputBytes = std::size_t{64} << 10;
  static constexpr std::size_t kPageBytes = 4096;
  static constexpr std::string_view kReturnCode = " failed with return code ";

  explicit Context(praas_context* context) : context_(context), active_processes_{praas_process_id(context)} {
    start_invocation(std::to_string(praas_invocation_id(context)));
  }

  /** As a C string, which would silently end at a NUL. */
  static std::string text(std::string_view name) {
    if (name.find('\0') != std::string_view::npos) {
      throw common::PraaSException("a name or key has a NUL byte after \"" + std::string(name.data()) + "\"");
    }
    return std::string(name);
  }

  template <typename Otherwise = common::PraaSException>
  void check(int status, const char* what, std::string_view name) const {
    if (status == PRAAS_OK) return;
    const std::string message = std::string(what) + "(\"" + std::string(name) + "\"): " + praas_status_name(status) +
                                ": " + praas_error_message(context_);
    switch (status) {
      case PRAAS_ERR_UNSUPPORTED:
        throw common::NotImplementedError(message);
      case PRAAS_ERR_PAYLOAD_TOO_LARGE:
      case PRAAS_ERR_BACKPRESSURE:
      case PRAAS_ERR_STATE_MEMORY:
        throw common::FailedAllocationError(message);
      default:
        throw Otherwise(message);
    }
  }

  [[noreturn]] void no_memory(const char* what, std::size_t size) const {
    throw common::FailedAllocationError(std::string(what) + "(" + std::to_string(size) +
                                        "): " + praas_error_message(context_));
  }

  Buffer copy(const void* data, std::size_t bytes) {
    if (bytes == 0) return {};
    Buffer buffer = get_buffer(bytes);
    std::memcpy(buffer.ptr, data, bytes);
    buffer.len = bytes;
    return buffer;
  }

  /** Functions change what they were given and pass it on, which a reply's own memory does not allow. */
  Buffer take(const praas_reply& reply) {
    struct Release {
      praas_context* context;
      const praas_reply& reply;
      ~Release() { praas_release(context, &reply); }
    } release{context_, reply};
    return copy(reply.data, reply.bytes);
  }

  /** The code that a function of PraaS' kind returned, from the message of its failure; 1 when it is of another. */
  static int return_code(std::string_view message) {
    const std::size_t at = message.find(kReturnCode);
    if (at == std::string_view::npos) return 1;
    const int code = std::atoi(std::string(message.substr(at + kReturnCode.size(), 11)).c_str());
    return code == 0 ? 1 : code;
  }

  /**
   * The output buffer proper, of at least `size` bytes. In PraaS it never has less than 5 MiB, and functions rely on a
   * little more than they asked for: sizes are rounded up to pages.
   */
  Buffer own_output(std::size_t size) {
    if (!own_.null() && size <= own_.size) return own_;
    // The next output replaces the last one, and whether it can be had or not, the last one is gone.
    if (output_.ptr == own_.ptr) output_ = {};
    own_ = {};
    void* memory = nullptr;
    std::size_t got = size;
    if (size == 0) {
      for (got = kDefaultOutputBytes;; got /= 2) {
        memory = praas_output(context_, got);
        if (memory != nullptr || got / 2 < kLeastDefaultOutputBytes) break;
      }
    } else {
      if (size <= SIZE_MAX - kPageBytes) {
        got = (size + kPageBytes - 1) / kPageBytes * kPageBytes;
        memory = praas_output(context_, got);
      }
      // The last page may be what exceeds maxContiguous.
      if (memory == nullptr) memory = praas_output(context_, got = size);
    }
    if (memory == nullptr) no_memory("get_output_buffer", size);
    own_ = {static_cast<std::byte*>(memory), 0, got};
    return own_;
  }

  /** Hands the result over. */
  void finish() {
    if (output_.len > 0 && output_.null()) throw common::PraaSException("the output buffer has a length but no memory");
    if (output_.null() || output_.ptr != own_.ptr) {
      check(praas_return(context_, output_.ptr, output_.len), "set_output_buffer", "");
      return;
    }
    if (output_.len > own_.size) {
      throw common::PraaSException("the output buffer has " + std::to_string(own_.size) + " bytes, and its len is " +
                                   std::to_string(output_.len));
    }
    // A result keeps its whole block until the caller has read it: not 5 MiB for the few bytes of most functions.
    if (output_.len <= kLeastDefaultOutputBytes && output_.len < own_.size / 16) {
      const std::vector<std::byte> small(output_.ptr, output_.ptr + output_.len);
      check(praas_return(context_, small.data(), small.size()), "get_output_buffer", "");
      return;
    }
    check(praas_output_truncate(context_, output_.len), "get_output_buffer", "");
  }

  praas_context* context_;
  Buffer own_;     // memory of praas_output
  Buffer output_;  // the result: own_, or what set_output_buffer was given
  std::string invocation_id_;
  std::vector<std::string> active_processes_;
  std::vector<std::string> swapped_processes_;
};

}  // namespace praas::process::runtime

// Inline, so that many files of a library may include this header; `used`, because nothing in them calls it.
extern "C" PRAAS_EXPORT __attribute__((used)) inline int praas_adapter_v1(void* symbol, praas_context* context) {
  using praas::process::runtime::Buffer;
  using praas::process::runtime::Context;
  using praas::process::runtime::Invocation;
  const char* const name = praas_function_name(context);
  try {
    Context call(context);
    std::size_t bytes = 0;
    const void* const input = praas_input(context, &bytes);
    Invocation invocation;
    invocation.key = call.invocation_id();
    invocation.function_name = name;
    invocation.args.push_back({static_cast<std::byte*>(const_cast<void*>(input)), bytes, bytes});
    const auto function = reinterpret_cast<int (*)(Invocation, Context&)>(symbol);
    const int code = function(std::move(invocation), call);
    if (code != 0) return praas_fail(context, "%s%s%d", name, Context::kReturnCode.data(), code);
    call.finish();
    return PRAAS_OK;
  } catch (const std::exception& error) {
    return praas_fail(context, "%s", error.what());
  } catch (...) {
    return praas_fail(context, "%s threw something that is not a std::exception", name);
  }
}

#endif
