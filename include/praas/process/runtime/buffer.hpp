#ifndef PRAAS_PROCESS_RUNTIME_BUFFER_HPP
#define PRAAS_PROCESS_RUNTIME_BUFFER_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
// Functions written for PraaS print to std::cerr and expect this header to have brought it.
#include <iostream>
#include <istream>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#if __has_include(<cereal/archives/binary.hpp>)
#include <cereal/archives/binary.hpp>
#define PRAAS_HAS_CEREAL 1
#endif

#include <praas/common/exceptions.hpp>
#include <praas/process/runtime/internal/buffer.hpp>

namespace praas::process::runtime {

namespace internal {

template <typename Object, typename Archive, typename = void>
struct HasLoad : std::false_type {};
template <typename Object, typename Archive>
struct HasLoad<Object, Archive, std::void_t<decltype(std::declval<Object&>().load(std::declval<Archive&>()))>>
    : std::true_type {};

template <typename>
struct Never : std::false_type {};

}  // namespace internal

/**
 * Memory that somebody else owns: `size` bytes at `ptr`, of which the first `len` are data. Copying a Buffer copies
 * these three, not the memory.
 *
 * Who owns it: `Invocation::args` is the input, where its sender wrote it, to be read only. What Context gives may be
 * written, and is gone when the function returns.
 */
struct Buffer {
  std::byte* ptr{};
  std::size_t len{};
  std::size_t size{};

  /** The data as text, without a copy and without a terminating NUL. */
  std::string_view str() const { return {reinterpret_cast<const char*>(ptr), len}; }

  bool empty() const { return len == 0; }
  bool null() const { return ptr == nullptr; }

  /**
   * Reads an object that serialize() wrote, by its member load(), or as cereal finds a way.
   * @throws cereal::Exception when the data ends too early.
   */
  template <typename Obj>
  void deserialize(Obj& obj) const {
#ifdef PRAAS_HAS_CEREAL
    // Like PraaS, a buffer that was filled by hand and whose `len` was not set is read up to its size.
    internal::FixedInput memory(ptr, len != 0 ? len : size);
    std::istream stream(&memory);
    cereal::BinaryInputArchive archive(stream);
    if constexpr (internal::HasLoad<Obj, cereal::BinaryInputArchive>::value) {
      obj.load(archive);
    } else {
      archive(obj);
    }
#else
    static_assert(internal::Never<Obj>::value, "deserialize() needs cereal; on Debian: apt-get install libcereal-dev");
    static_cast<void>(obj);
#endif
  }

  /**
   * Writes an object with cereal's binary archive from the begin of the memory, and sets `len`.
   * @returns `len`.
   * @throws praas::common::PraaSException when it takes more than `size` bytes; `len` is as before then.
   */
  template <typename Obj>
  std::size_t serialize(const Obj& obj) {
#ifdef PRAAS_HAS_CEREAL
    internal::FixedOutput memory(ptr, size);
    {
      std::ostream stream(&memory);
      cereal::BinaryOutputArchive archive(stream);
      archive(obj);
    }
    if (memory.written() > size) {
      throw common::PraaSException("Buffer::serialize: the object takes " + std::to_string(memory.written()) +
                                   " bytes and the buffer has " + std::to_string(size) + "; ask for a larger one");
    }
    len = memory.written();
    return len;
#else
    static_assert(internal::Never<Obj>::value, "serialize() needs cereal; on Debian: apt-get install libcereal-dev");
    static_cast<void>(obj);
    return 0;
#endif
  }
};

}  // namespace praas::process::runtime

#endif
