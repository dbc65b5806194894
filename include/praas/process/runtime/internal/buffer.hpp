#ifndef PRAAS_PROCESS_RUNTIME_INTERNAL_BUFFER_HPP
#define PRAAS_PROCESS_RUNTIME_INTERNAL_BUFFER_HPP

#include <cstddef>
#include <cstring>
#include <streambuf>

namespace praas::process::runtime::internal {

/** Memory of somebody else: what Context::as_buffer() gives. */
template <typename T>
struct BufferAccessor {
  T* ptr{};
  std::size_t len{};

  BufferAccessor() = default;
  BufferAccessor(T* data, std::size_t length) : ptr(data), len(length) {}

  T* data() const { return ptr; }
  bool empty() const { return len == 0; }
  bool null() const { return ptr == nullptr; }
};

/**
 * Writes into memory of a fixed size. What does not fit is counted and dropped instead of failing in the middle, so
 * that the error can say how much would have been needed.
 */
class FixedOutput final : public std::streambuf {
 public:
  FixedOutput(std::byte* memory, std::size_t size) : memory_(memory), size_(size) {}

  /** Bytes written so far, with those that did not fit. */
  std::size_t written() const { return written_; }

 protected:
  std::streamsize xsputn(const char* data, std::streamsize count) override {
    const std::size_t room = written_ < size_ ? size_ - written_ : 0;
    const std::size_t length = static_cast<std::size_t>(count);
    const std::size_t fits = length < room ? length : room;
    if (fits > 0) std::memcpy(memory_ + written_, data, fits);
    written_ += length;
    return count;
  }

  int_type overflow(int_type character) override {
    if (traits_type::eq_int_type(character, traits_type::eof())) return traits_type::not_eof(character);
    const char byte = traits_type::to_char_type(character);
    xsputn(&byte, 1);
    return character;
  }

 private:
  std::byte* memory_;
  std::size_t size_;
  std::size_t written_ = 0;
};

/** Reads memory in place. */
class FixedInput final : public std::streambuf {
 public:
  FixedInput(std::byte* memory, std::size_t size) {
    char* const begin = reinterpret_cast<char*>(memory);
    setg(begin, begin, begin + size);
  }
};

}  // namespace praas::process::runtime::internal

#endif
