#include "function/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include "base/json_writer.h"
#include "praas/praas.h"

namespace praas::function {
namespace {

constexpr std::string_view kRegistration = "praas_function_";

/// The dynamic section of a loaded object: what the loader itself goes by.
class DynamicSection {
 public:
  explicit DynamicSection(const link_map& map) noexcept : base_(map.l_addr) {
    for (const ElfW(Dyn)* entry = map.l_ld; entry != nullptr && entry->d_tag != DT_NULL; ++entry) {
      switch (entry->d_tag) {
        case DT_SYMTAB:
          symbols_ = At<ElfW(Sym)>(entry->d_un.d_ptr);
          break;
        case DT_STRTAB:
          strings_ = At<char>(entry->d_un.d_ptr);
          break;
        case DT_GNU_HASH:
          gnu_hash_ = At<uint32_t>(entry->d_un.d_ptr);
          break;
        case DT_HASH:
          hash_ = At<uint32_t>(entry->d_un.d_ptr);
          break;
        case DT_RUNPATH:
        case DT_RPATH:
          search_path_ = entry->d_un.d_val;
          break;
        default:
          break;
      }
    }
  }

  template <typename Visit>
  void ForEachSymbol(Visit visit) const {
    if (symbols_ == nullptr || strings_ == nullptr) return;
    const uint32_t count = SymbolCount();
    for (uint32_t index = 1; index < count; ++index) visit(symbols_[index], strings_ + symbols_[index].st_name);
  }

  [[nodiscard]] std::string_view search_path() const noexcept {
    return search_path_ == 0 || strings_ == nullptr ? std::string_view() : strings_ + search_path_;
  }

 private:
  template <typename T>
  [[nodiscard]] const T* At(ElfW(Addr) address) const noexcept {
    // glibc has relocated these; other loaders leave them relative.
    return reinterpret_cast<const T*>(address < base_ ? address + base_ : address);
  }

  /// The symbol table does not say how long it is; the hash tables do.
  [[nodiscard]] uint32_t SymbolCount() const noexcept {
    if (hash_ != nullptr) return hash_[1];
    if (gnu_hash_ == nullptr) return 0;
    const uint32_t buckets = gnu_hash_[0];
    const uint32_t first = gnu_hash_[1];
    const uint32_t* const bucket = gnu_hash_ + 4 + gnu_hash_[2] * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t* const chain = bucket + buckets;
    uint32_t last = 0;
    for (uint32_t i = 0; i < buckets; ++i) last = std::max(last, bucket[i]);
    if (last < first) return first;
    while ((chain[last - first] & 1) == 0) ++last;
    return last + 1;
  }

  ElfW(Addr) base_;
  const ElfW(Sym) * symbols_ = nullptr;
  const char* strings_ = nullptr;
  const uint32_t* gnu_hash_ = nullptr;
  const uint32_t* hash_ = nullptr;
  ElfW(Xword) search_path_ = 0;
};

Result<DynamicSection> SectionOf(void* handle) {
  link_map* map = nullptr;
  if (::dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) {
    return Status(Code::kWorkerStart, std::string("dlinfo: ") + ::dlerror());
  }
  return DynamicSection(*map);
}

bool Exports(const ElfW(Sym) & symbol, std::initializer_list<unsigned> types) noexcept {
  const unsigned bind = ELF64_ST_BIND(symbol.st_info);
  const unsigned visibility = ELF64_ST_VISIBILITY(symbol.st_other);
  return symbol.st_shndx != SHN_UNDEF && (bind == STB_GLOBAL || bind == STB_WEAK) &&
         (visibility == STV_DEFAULT || visibility == STV_PROTECTED) &&
         std::find(types.begin(), types.end(), ELF64_ST_TYPE(symbol.st_info)) != types.end();
}

/// Not a function somebody meant to be called: C++ names, what compilers and linkers add, and our own.
bool IsOurs(std::string_view name) noexcept { return name.empty() || name[0] == '_' || name.starts_with("praas_"); }

}  // namespace

Result<Library> Library::Open(const std::string& path) {
  ::dlerror();
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return Status(Code::kWorkerStart, std::string("cannot load the library: ") + (why != nullptr ? why : path.c_str()));
  }
  return Library(path, handle);
}

void* Library::Find(const std::string& symbol) const noexcept {
  void* const found = ::dlsym(handle_, symbol.c_str());
  if (found == nullptr) return nullptr;
  // dlsym also finds what the libraries it is linked with define, such as every function of libc.
  link_map* own = nullptr;
  Dl_info info{};
  link_map* owner = nullptr;
  const bool known = ::dlinfo(handle_, RTLD_DI_LINKMAP, &own) == 0 &&
                     ::dladdr1(found, &info, reinterpret_cast<void**>(&owner), RTLD_DL_LINKMAP) != 0;
  return !known || owner == own ? found : nullptr;
}

bool Library::has_adapter() const noexcept { return Find(PRAAS_ADAPTER_SYMBOL) != nullptr; }

bool Library::relocatable() const noexcept {
  const Result<DynamicSection> section = SectionOf(handle_);
  return !section.ok() || section->search_path().find("$ORIGIN") == std::string_view::npos;
}

Result<std::vector<Library::Exported>> Library::Functions() const {
  const Result<DynamicSection> section = SectionOf(handle_);
  if (!section.ok()) return section.status();
  const Abi others = has_adapter() ? Abi::kAdapter : Abi::kRaw;
  std::map<std::string, Exported> found;
  Status wrong;
  section->ForEachSymbol([&](const ElfW(Sym) & symbol, const char* text) {
    const std::string_view name(text);
    if (name.starts_with(kRegistration) && Exports(symbol, {STT_OBJECT})) {
      const auto* const info = static_cast<const praas_function_info*>(Find(std::string(name)));
      if (info == nullptr) return;
      if (info->api_version != PRAAS_API_VERSION) {
        wrong = Status(Code::kWorkerStart, std::string(name) + " was built for version " +
                                               std::to_string(info->api_version) + " of praas.h; this is version " +
                                               std::to_string(PRAAS_API_VERSION) + ". Build the library again");
        return;
      }
      const std::string registered(name.substr(kRegistration.size()));
      found.insert_or_assign(registered, Exported{registered, Abi::kC, info->flags});
    } else if (!IsOurs(name) && Exports(symbol, {STT_FUNC, STT_GNU_IFUNC})) {
      found.try_emplace(std::string(name), Exported{std::string(name), others, 0});
    }
  });
  if (!wrong.ok()) return wrong;
  std::vector<Exported> functions;
  functions.reserve(found.size());
  for (auto& [name, function] : found) functions.push_back(std::move(function));
  return functions;
}

Result<std::string> DescribeLibrary(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (real == nullptr) return Status::System("realpath(" + path + ")");
  Result<Library> library = Library::Open(real.get());
  if (!library.ok()) return library.status();
  Result<std::vector<Library::Exported>> functions = library->Functions();
  if (!functions.ok()) return functions.status();
  JsonWriter json;
  json.BeginObject();
  json.Text("library", library->path());
  json.Bool("adapter", library->has_adapter());
  json.Bool("relocatable", library->relocatable());
  json.BeginArray("functions");
  for (const Library::Exported& function : *functions) {
    json.BeginObject();
    json.Text("name", function.name);
    json.Text("abi", AbiName(function.abi));
    json.Number("flags", function.flags);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return json.Take();
}

}  // namespace praas::function
