/**
 * praas.hpp: functions for praas processes in C++17 and later, on top of praas.h.
 *
 *   #include <praas/praas.hpp>
 *
 *   PRAAS_CPP_FUNCTION(scale) {
 *     auto input = call.input<double>();
 *     auto grid = call.array<double>("grid", input.size());  // shared by all workers, in every language
 *     auto lock = call.state().lock("grid");
 *     for (std::size_t i = 0; i < input.size(); ++i) grid[i] *= input[i];
 *     call.result(grid);
 *   }
 *
 *   c++ -std=c++17 -shared -fPIC -o libscale.so scale.cc && praas run ./libscale.so
 *
 * The body has a parameter `praas::Call& call` and returns nothing; an exception that leaves it is the failure of the
 * call. Everything here is for the thread that runs the function, while it runs, and so is all memory it gives unless
 * its documentation says otherwise. What praas.h reports as a status is thrown as praas::Error.
 *
 * Names and keys are 1 … 255 bytes of UTF-8. A timeout of zero means "until the deadline of the invocation", and no
 * wait is ever longer than that.
 */
#ifndef PRAAS_PRAAS_HPP
#define PRAAS_PRAAS_HPP

#include <praas/praas.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__has_include) && __cplusplus >= 202002L
#if __has_include(<ranges>)
#include <ranges>
#endif
#endif

namespace praas {

/** A call of praas.h that failed; or what a function throws to say with which status it fails. */
class Error : public std::runtime_error {
 public:
  /** @param status One of praas_status, not PRAAS_OK. */
  Error(int status, const std::string& message)
      : std::runtime_error(std::string(praas_status_name(status)) + ": " + message), status_(status) {}

  /** One of praas_status. */
  [[nodiscard]] int status() const noexcept { return status_; }
  /** The code of docs/errors.md, "ERR_STATE_TYPE" for example; what() starts with it. */
  [[nodiscard]] const char* code() const noexcept { return praas_status_name(status_); }

 private:
  int status_;
};

/**
 * `size()` elements in memory of somebody else. The same type in every standard, so that files of one library may be
 * compiled for different ones; converts to std::span where there is one.
 */
template <typename T>
class Span {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  /** Read-only from writable. */
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T>>>
  constexpr Span(Span<U> other) noexcept : data_(other.data()), size_(other.size()) {}

  [[nodiscard]] constexpr T* data() const noexcept { return data_; }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] constexpr T* begin() const noexcept { return data_; }
  [[nodiscard]] constexpr T* end() const noexcept { return data_ + size_; }
  /** Not checked. */
  [[nodiscard]] constexpr T& operator[](std::size_t index) const noexcept { return data_[index]; }

  /** Elements [offset, offset + count). @throws std::out_of_range */
  [[nodiscard]] constexpr Span subspan(std::size_t offset, std::size_t count) const {
    if (offset > size_ || count > size_ - offset) throw std::out_of_range("praas::Span::subspan");
    return {data_ + offset, count};
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/** Bytes to be read: text, a Span, a vector, an array, or whatever else has data() and size() of plain elements. */
class Bytes : public Span<const std::byte> {
 public:
  constexpr Bytes() noexcept = default;
  Bytes(const void* data, std::size_t bytes) noexcept : Span(static_cast<const std::byte*>(data), bytes) {}
  Bytes(const char* text) noexcept : Bytes(text, std::strlen(text)) {}
  template <typename Container, typename Pointer = decltype(std::declval<const Container&>().data()),
            typename = decltype(std::declval<const Container&>().size()),
            typename = std::enable_if_t<std::is_pointer_v<Pointer> &&
                                        std::is_trivially_copyable_v<std::remove_pointer_t<Pointer>>>>
  Bytes(const Container& container) noexcept
      : Bytes(container.data(), container.size() * sizeof(std::remove_pointer_t<Pointer>)) {}
};

namespace detail {

inline void check(const praas_context* context, int status) {
  if (status != PRAAS_OK) throw Error(status, praas_error_message(context));
}

/** C strings end at the first NUL: a key with one inside would silently be another key. */
inline const char* c_string(const std::string& name) {
  if (name.find('\0') != std::string::npos) throw Error(PRAAS_ERR_NAME_INVALID, "a name or key contains a NUL byte");
  return name.c_str();
}

inline std::uint64_t timeout(std::chrono::nanoseconds duration) {
  if (duration.count() < 0) {
    throw Error(PRAAS_ERR_ARGUMENT_INVALID,
                "a timeout is " + std::to_string(duration.count()) + " ns; it must be 0 (until the deadline) or more");
  }
  return static_cast<std::uint64_t>(duration.count());
}

template <typename T>
std::size_t bytes_of(std::size_t count) {
  if (count > SIZE_MAX / sizeof(T)) throw Error(PRAAS_ERR_PAYLOAD_TOO_LARGE, std::to_string(count) + " elements");
  return count * sizeof(T);
}

/** Bytes as elements, in place. */
template <typename T>
Span<const T> elements(Span<const std::byte> bytes) {
  static_assert(std::is_trivially_copyable_v<T>, "only plain data can be read in place");
  if (bytes.size() % sizeof(T) != 0 || reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0) {
    throw Error(PRAAS_ERR_ARGUMENT_INVALID, std::to_string(bytes.size()) +
                                                " bytes are no whole number of elements of " +
                                                std::to_string(sizeof(T)) + " bytes, or not aligned for them");
  }
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

template <typename T>
constexpr std::uint32_t element_type() {
  static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, long double>,
                "shared arrays hold what JavaScript's typed arrays hold: integers of 1 to 8 bytes, float, double");
  if constexpr (std::is_same_v<T, float>) return PRAAS_FLOAT32;
  if constexpr (std::is_same_v<T, double>) return PRAAS_FLOAT64;
  constexpr std::uint32_t kSigned[] = {PRAAS_INT8, PRAAS_INT16, PRAAS_INT32, PRAAS_INT64};
  constexpr std::uint32_t kUnsigned[] = {PRAAS_UINT8, PRAAS_UINT16, PRAAS_UINT32, PRAAS_UINT64};
  constexpr std::size_t kLog = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  return std::is_signed_v<T> ? kSigned[kLog] : kUnsigned[kLog];
}

}  // namespace detail

/**
 * A shared array of the process: the same memory in every worker and in every language. Valid until the invocation
 * ends.
 *
 * Elements are read and written in place; under a lock, or with the atomic operations below, which go together with
 * JavaScript's Atomics on the same array (sequentially consistent).
 */
template <typename T>
class Array : public Span<T> {
 public:
  Array(T* data, std::size_t size) noexcept : Span<T>(data, size) {}

  [[nodiscard]] T load(std::size_t index) const noexcept {
    T value;
    __atomic_load(&(*this)[index], &value, __ATOMIC_SEQ_CST);
    return value;
  }
  void store(std::size_t index, T value) const noexcept { __atomic_store(&(*this)[index], &value, __ATOMIC_SEQ_CST); }
  /** Adds and returns what was there before. Integers only. */
  T add(std::size_t index, T value) const noexcept {
    static_assert(std::is_integral_v<T>, "atomic addition is for integers; take a lock for floating-point numbers");
    return __atomic_fetch_add(&(*this)[index], value, __ATOMIC_SEQ_CST);
  }
  /** Stores `desired` if the element is `expected`, and says whether it was; if not, `expected` is what it is. */
  bool compare_exchange(std::size_t index, T& expected, T desired) const noexcept {
    return __atomic_compare_exchange(&(*this)[index], &expected, &desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  }
};

/** A value of the state in place, unchanged until the invocation ends even when the key is set anew. */
struct View {
  Span<const std::byte> bytes;
  std::uint64_t version = 0;

  [[nodiscard]] std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /** @throws Error ERR_ARGUMENT_INVALID when the bytes are no whole number of T. */
  template <typename T>
  [[nodiscard]] Span<const T> as() const {
    return detail::elements<T>(bytes);
  }
};

/** A key of the state. */
struct KeyInfo {
  std::string key;
  std::uint32_t element_type = 0;  // 0 for a value, else one of praas_element_type of an array
  std::uint64_t bytes = 0;
  std::uint64_t version = 0;
  std::chrono::system_clock::time_point modified;
};

/** A lock that is held, and released when this object ends. Move-only. */
class Lock {
 public:
  Lock(praas_context* context, std::uint64_t lock) noexcept : context_(context), lock_(lock) {}
  Lock(Lock&& other) noexcept : context_(std::exchange(other.context_, nullptr)), lock_(other.lock_) {}
  Lock& operator=(Lock&& other) noexcept {
    if (this != &other) {
      release();
      context_ = std::exchange(other.context_, nullptr);
      lock_ = other.lock_;
    }
    return *this;
  }
  ~Lock() { release(); }

  /** Releases it now. Does nothing the second time. @throws Error ERR_STATE_LOCK_LOST */
  void unlock() {
    if (praas_context* const context = std::exchange(context_, nullptr)) {
      detail::check(context, praas_state_unlock(context, lock_));
    }
  }

 private:
  /** Nothing can be done about a failure while the stack unwinds; the end of the invocation releases it then. */
  void release() noexcept {
    if (praas_context* const context = std::exchange(context_, nullptr)) praas_state_unlock(context, lock_);
  }

  praas_context* context_;
  std::uint64_t lock_;
};

/** What a call or a mailbox gave, in place, until this object ends. Move-only. */
class Reply {
 public:
  Reply(praas_context* context, const praas_reply& reply) noexcept : context_(context), reply_(reply) {}
  Reply(Reply&& other) noexcept
      : context_(std::exchange(other.context_, nullptr)), reply_(std::exchange(other.reply_, {})) {}
  Reply& operator=(Reply&& other) noexcept {
    if (this != &other) {
      release();
      context_ = std::exchange(other.context_, nullptr);
      reply_ = std::exchange(other.reply_, {});
    }
    return *this;
  }
  ~Reply() { release(); }

  [[nodiscard]] Span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(reply_.data), reply_.bytes};
  }
  [[nodiscard]] std::string_view text() const noexcept { return {static_cast<const char*>(reply_.data), reply_.bytes}; }
  /** @throws Error ERR_ARGUMENT_INVALID when the bytes are no whole number of T. */
  template <typename T>
  [[nodiscard]] Span<const T> as() const {
    return detail::elements<T>(bytes());
  }

 private:
  void release() noexcept {
    if (praas_context* const context = std::exchange(context_, nullptr)) praas_release(context, &reply_);
  }

  praas_context* context_;
  praas_reply reply_;
};

/** A call that was begun. One that is never waited for is cancelled when the invocation ends. */
class PendingCall {
 public:
  PendingCall(praas_context* context, std::uint64_t call) noexcept : context_(context), call_(call) {}

  /** Waits for the result; once. @throws Error of the callee. */
  [[nodiscard]] Reply wait() const {
    praas_reply reply{};
    detail::check(context_, praas_invoke_wait(context_, call_, &reply));
    return {context_, reply};
  }

 private:
  praas_context* context_;
  std::uint64_t call_;
};

/** The state of the process, shared by its workers in all languages. Versions are process-wide and never reused. */
class State {
 public:
  explicit State(praas_context* context) noexcept : context_(context) {}

  /** @throws Error ERR_STATE_NOT_FOUND · ERR_STATE_TYPE for an array. */
  [[nodiscard]] View view(const std::string& key) const {
    View view;
    detail::check(context_, try_view(key, view));
    return view;
  }
  /** The same, and nullopt when there is no such key. @throws Error ERR_STATE_TYPE for an array. */
  [[nodiscard]] std::optional<View> find(const std::string& key) const {
    View view;
    const int status = try_view(key, view);
    if (status == PRAAS_ERR_STATE_NOT_FOUND) return std::nullopt;
    detail::check(context_, status);
    return view;
  }
  /** A copy of the value, which lasts. @throws Error ERR_STATE_NOT_FOUND · ERR_STATE_TYPE for an array. */
  [[nodiscard]] std::vector<std::byte> get(const std::string& key) const {
    std::vector<std::byte> value(kFirstGuessBytes);
    for (;;) {
      std::size_t bytes = 0;
      const int status = praas_state_get(context_, detail::c_string(key), value.data(), value.size(), &bytes, nullptr);
      // Somebody may make it longer between two attempts.
      const bool longer = status == PRAAS_ERR_STATE_RANGE && bytes > value.size();
      if (!longer) detail::check(context_, status);
      value.resize(bytes);
      if (!longer) return value;
    }
  }
  /** Replaces the value as a whole. @returns its version. */
  std::uint64_t set(const std::string& key, Bytes value) const {
    std::uint64_t version = 0;
    detail::check(context_, praas_state_set(context_, detail::c_string(key), value.data(), value.size(), &version));
    return version;
  }
  /** The same if the key has this version (0: does not exist); nullopt, and nothing done, if it has another. */
  std::optional<std::uint64_t> set_if(const std::string& key, Bytes value, std::uint64_t if_version) const {
    std::uint64_t version = 0;
    const int status =
        praas_state_set_if(context_, detail::c_string(key), value.data(), value.size(), if_version, &version);
    if (status == PRAAS_ERR_STATE_VERSION) return std::nullopt;
    detail::check(context_, status);
    return version;
  }
  /** Replaces a part of the value, as one step; may extend it. @returns the version. @throws Error ERR_STATE_RANGE */
  std::uint64_t patch(const std::string& key, std::size_t offset, Bytes value) const {
    std::uint64_t version = 0;
    detail::check(context_,
                  praas_state_patch(context_, detail::c_string(key), offset, value.data(), value.size(), &version));
    return version;
  }
  /** Adds bytes at the end of the value, as one step; creates it. @returns the version. */
  std::uint64_t append(const std::string& key, Bytes value) const {
    std::uint64_t version = 0;
    detail::check(context_, praas_state_append(context_, detail::c_string(key), value.data(), value.size(), &version));
    return version;
  }
  /** @returns whether there was such a key. */
  bool erase(const std::string& key) const {
    const int status = praas_state_delete(context_, detail::c_string(key));
    if (status != PRAAS_ERR_STATE_NOT_FOUND) detail::check(context_, status);
    return status == PRAAS_OK;
  }
  /**
   * Publishes a key: clients then read its value without a message to this process. `capacity`: of the largest value
   * that can be read so; 0: the present size. @returns what it was rounded up to. @throws Error ERR_STATE_MEMORY
   */
  std::size_t publish(const std::string& key, std::size_t capacity = 0) const {
    std::size_t given = 0;
    detail::check(context_, praas_state_publish(context_, detail::c_string(key), capacity, &given));
    return given;
  }
  /** @returns whether the key was published. The value stays. */
  bool unpublish(const std::string& key) const {
    const int status = praas_state_unpublish(context_, detail::c_string(key));
    if (status != PRAAS_ERR_STATE_NOT_FOUND) detail::check(context_, status);
    return status == PRAAS_OK;
  }
  /** @throws Error ERR_STATE_NOT_FOUND */
  [[nodiscard]] KeyInfo stat(const std::string& key) const {
    praas_key_info info{};
    detail::check(context_, praas_state_stat(context_, detail::c_string(key), &info));
    return key_info(key, info);
  }
  /** Every key that starts with `prefix`, in byte order. */
  [[nodiscard]] std::vector<KeyInfo> keys(const std::string& prefix = "") const {
    struct Collected {
      std::vector<KeyInfo> keys;
      std::exception_ptr error;
    } collected;
    // An exception must not pass through the worker, which calls this function.
    const auto visit = [](void* argument, const praas_key_info* info) -> int {
      auto& into = *static_cast<Collected*>(argument);
      try {
        into.keys.push_back(key_info(info->key, *info));
        return 0;
      } catch (...) {
        into.error = std::current_exception();
        return 1;
      }
    };
    const int status = praas_state_keys(context_, detail::c_string(prefix), visit, &collected);
    if (collected.error) std::rethrow_exception(collected.error);
    detail::check(context_, status);
    return std::move(collected.keys);
  }
  /**
   * The shared array `key` of `count` elements, zeroed when new. T is an integer of 1 to 8 bytes, float or double.
   * @param element_type For a Uint8ClampedArray, which has no type of its own in C++: PRAAS_UINT8_CLAMPED.
   * @throws Error ERR_STATE_TYPE or ERR_STATE_RANGE when it exists with another type or size.
   */
  template <typename T>
  [[nodiscard]] Array<T> array(const std::string& key, std::size_t count,
                               std::uint32_t element_type = detail::element_type<T>()) const {
    void* data = nullptr;
    detail::check(context_, praas_state_array(context_, detail::c_string(key), element_type, count, &data));
    return {static_cast<T*>(data), count};
  }
  /**
   * The whole of a shared array that exists.
   * @throws Error ERR_STATE_NOT_FOUND · ERR_STATE_TYPE for a value, or another type.
   */
  template <typename T>
  [[nodiscard]] Array<T> array(const std::string& key) const {
    return array<T>(key, static_cast<std::size_t>(stat(key).bytes / sizeof(T)));
  }
  /**
   * Takes the fair reader/writer lock of this name, which need not be a key's.
   * @throws Error ERR_STATE_LOCK_TIMEOUT
   */
  [[nodiscard]] Lock lock(const std::string& name, std::chrono::nanoseconds timeout = {}) const {
    return take_lock(name, PRAAS_LOCK_WRITE, timeout);
  }
  /** The same, together with other readers. */
  [[nodiscard]] Lock lock_shared(const std::string& name, std::chrono::nanoseconds timeout = {}) const {
    return take_lock(name, PRAAS_LOCK_READ, timeout);
  }

 private:
  static constexpr std::size_t kFirstGuessBytes = 256;

  int try_view(const std::string& key, View& view) const {
    const void* data = nullptr;
    std::size_t bytes = 0;
    const int status = praas_state_view(context_, detail::c_string(key), &data, &bytes, &view.version);
    if (status == PRAAS_OK) view.bytes = {static_cast<const std::byte*>(data), bytes};
    return status;
  }
  Lock take_lock(const std::string& name, std::uint32_t mode, std::chrono::nanoseconds timeout) const {
    std::uint64_t lock = 0;
    detail::check(context_, praas_state_lock(context_, detail::c_string(name), mode, detail::timeout(timeout), &lock));
    return {context_, lock};
  }
  static KeyInfo key_info(std::string key, const praas_key_info& info) {
    const std::chrono::nanoseconds modified(info.modified_ns);
    return {std::move(key), info.element_type, info.bytes, info.version,
            std::chrono::system_clock::time_point(
                std::chrono::duration_cast<std::chrono::system_clock::duration>(modified))};
  }

  praas_context* context_;
};

/** The mailbox of the process. */
class Mailbox {
 public:
  explicit Mailbox(praas_context* context) noexcept : context_(context) {}

  /** Puts a message; copied. @throws Error ERR_UNSUPPORTED for another process than this one. */
  void put(const std::string& key, Bytes message, const std::string& process = PRAAS_SELF) const {
    detail::check(context_, praas_put(context_, detail::c_string(process), detail::c_string(key), message.data(),
                                      message.size()));
  }
  /** Takes the oldest message under `key`, and waits for one. @throws Error ERR_INVOCATION_TIMEOUT */
  [[nodiscard]] Reply get(const std::string& key, std::chrono::nanoseconds timeout = {},
                          const std::string& source = PRAAS_ANY) const {
    praas_reply message{};
    detail::check(context_, praas_get(context_, detail::c_string(source), detail::c_string(key),
                                      detail::timeout(timeout), &message));
    return {context_, message};
  }

 private:
  praas_context* context_;
};

/** One invocation: its input, its result, and the process it runs in. */
class Call {
 public:
  explicit Call(praas_context* context) noexcept : context_(context) {}

  // --- input and result ---

  /** The input, where its sender wrote it: to be read only. */
  [[nodiscard]] Span<const std::byte> input() const noexcept {
    std::size_t bytes = 0;
    const void* data = praas_input(context_, &bytes);
    return {static_cast<const std::byte*>(data), bytes};
  }
  /** The input as elements. @throws Error ERR_ARGUMENT_INVALID when it is no whole number of T. */
  template <typename T>
  [[nodiscard]] Span<const T> input() const {
    return detail::elements<T>(input());
  }
  [[nodiscard]] std::string_view text() const noexcept {
    const auto bytes = input();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /**
   * Memory for `count` elements at the result's final place, contents undefined. What it holds when the function
   * returns is the result, without a copy. A second call replaces the first, whose memory is then gone.
   * @throws Error ERR_PAYLOAD_TOO_LARGE when there is no memory, or it exceeds the process's maxContiguous.
   */
  template <typename T = std::byte>
  [[nodiscard]] Span<T> output(std::size_t count) const {
    static_assert(std::is_trivially_copyable_v<T>, "a result is plain data");
    void* memory = praas_output(context_, detail::bytes_of<T>(count));
    if (memory == nullptr) throw Error(PRAAS_ERR_PAYLOAD_TOO_LARGE, praas_error_message(context_));
    return {static_cast<T*>(memory), count};
  }
  /** Only the first `bytes` bytes of the last output() are the result. */
  void truncate(std::size_t bytes) const { detail::check(context_, praas_output_truncate(context_, bytes)); }

  /** Makes bytes the result: input, or a part of it, without a copy; anything else is copied at once. */
  void result(Bytes bytes) const { detail::check(context_, praas_return(context_, bytes.data(), bytes.size())); }

  /**
   * Memory for `count` elements until the invocation ends, 64-byte aligned, contents undefined.
   * @throws Error ERR_STATE_MEMORY when there is none.
   */
  template <typename T = std::byte>
  [[nodiscard]] Span<T> buffer(std::size_t count) const {
    static_assert(std::is_trivially_copyable_v<T>, "nothing runs constructors or destructors in it");
    void* memory = praas_buffer(context_, detail::bytes_of<T>(count));
    if (memory == nullptr && count > 0) throw Error(PRAAS_ERR_STATE_MEMORY, praas_error_message(context_));
    return {static_cast<T*>(memory), count};
  }

  // --- the process ---

  [[nodiscard]] State state() const noexcept { return State(context_); }
  /** Short for state().array<T>(key, count). */
  template <typename T>
  [[nodiscard]] Array<T> array(const std::string& key, std::size_t count) const {
    return state().array<T>(key, count);
  }
  /** Short for state().array<T>(key). */
  template <typename T>
  [[nodiscard]] Array<T> array(const std::string& key) const {
    return state().array<T>(key);
  }
  [[nodiscard]] Mailbox mailbox() const noexcept { return Mailbox(context_); }

  /**
   * Calls a function of this process, in any language, and waits. Meanwhile this worker runs other calls, on the same
   * stack. @throws Error of the callee: ERR_FUNCTION_UNKNOWN · ERR_FUNCTION_THREW · ERR_WORKER_CRASHED · …
   */
  [[nodiscard]] Reply invoke(const std::string& function, Bytes input = {},
                             std::chrono::nanoseconds timeout = {}) const {
    praas_reply reply{};
    detail::check(context_, praas_invoke(context_, detail::c_string(function), input.data(), input.size(),
                                         detail::timeout(timeout), &reply));
    return {context_, reply};
  }
  /** The same without waiting, for several calls at a time. The input is copied. */
  [[nodiscard]] PendingCall begin(const std::string& function, Bytes input = {},
                                  std::chrono::nanoseconds timeout = {}) const {
    std::uint64_t call = 0;
    detail::check(context_, praas_invoke_begin(context_, detail::c_string(function), input.data(), input.size(),
                                               detail::timeout(timeout), &call));
    return {context_, call};
  }

  // --- about the invocation ---

  [[nodiscard]] const char* process_id() const noexcept { return praas_process_id(context_); }
  [[nodiscard]] const char* function_name() const noexcept { return praas_function_name(context_); }
  /** Names this invocation among all that its worker ever runs. */
  [[nodiscard]] std::uint64_t id() const noexcept { return praas_invocation_id(context_); }
  /** 0 for a call of a client, n + 1 for a call made by an invocation of depth n. */
  [[nodiscard]] std::uint32_t depth() const noexcept { return praas_invocation_depth(context_); }
  /** Until the deadline; 0 when it has passed. */
  [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
    const std::uint64_t remaining = praas_remaining_ns(context_);
    return std::chrono::nanoseconds(remaining > INT64_MAX ? INT64_MAX : static_cast<std::int64_t>(remaining));
  }
  /** True once nobody reads the result any more. Cheap. */
  [[nodiscard]] bool cancelled() const noexcept { return praas_cancelled(context_) != 0; }

  /** For calls of praas.h. */
  [[nodiscard]] praas_context* context() const noexcept { return context_; }

 private:
  praas_context* context_;
};

namespace detail {

inline int run(praas_context* context, void (*body)(Call& call)) {
  try {
    Call call(context);
    body(call);
    return PRAAS_OK;
  } catch (const Error& error) {
    praas_fail(context, "%s", error.what());
    return error.status() == PRAAS_OK ? static_cast<int>(PRAAS_FAILED) : error.status();
  } catch (const std::exception& error) {
    return praas_fail(context, "%s", error.what());
  } catch (...) {
    return praas_fail(context, "%s threw something that is not a std::exception", praas_function_name(context));
  }
}

}  // namespace detail
}  // namespace praas

#if defined(__cpp_lib_ranges)
template <typename T>
inline constexpr bool std::ranges::enable_borrowed_range<praas::Span<T>> = true;
template <typename T>
inline constexpr bool std::ranges::enable_borrowed_range<praas::Array<T>> = true;
#endif

/** Defines and registers a function; its body follows and has a parameter `praas::Call& call`. */
#define PRAAS_CPP_FUNCTION(name) PRAAS_CPP_FUNCTION_WITH(name, 0)
/** The same with flags of praas_function_flags. */
#define PRAAS_CPP_FUNCTION_WITH(name, function_flags)                                                  \
  static void praas_body_##name(praas::Call& call);                                                    \
  PRAAS_FUNCTION_WITH(name, function_flags) { return praas::detail::run(context, praas_body_##name); } \
  static void praas_body_##name([[maybe_unused]] praas::Call& call)

#endif
