#include "function/library.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "function/runner.h"
#include "segment/layout.h"

namespace praas::function {
namespace {

std::vector<Library::Exported> FunctionsOf(const std::string& path) {
  auto library = Library::Open(path);
  EXPECT_TRUE(library.ok()) << library.status().message();
  auto functions = library->Functions();
  EXPECT_TRUE(functions.ok()) << functions.status().message();
  return *functions;
}

const Library::Exported* Named(const std::vector<Library::Exported>& functions, const std::string& name) {
  const auto found = std::find_if(functions.begin(), functions.end(), [&](const auto& f) { return f.name == name; });
  return found == functions.end() ? nullptr : &*found;
}

/// A shared object of this source, deleted with it.
class Compiled {
 public:
  explicit Compiled(const std::string& source, const std::string& flags = "") {
    EXPECT_NE(::mkdtemp(folder_), nullptr);
    const std::string file = std::string(folder_) + "/f.c";
    FILE* const out = std::fopen(file.c_str(), "w");
    std::fputs(source.c_str(), out);
    std::fclose(out);
    const std::string command = "cc -shared -fPIC " + flags + " -o " + path() + " " + file;
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    ::unlink(file.c_str());
  }
  ~Compiled() {
    ::unlink(path().c_str());
    ::rmdir(folder_);
  }
  [[nodiscard]] std::string path() const { return std::string(folder_) + "/libf.so"; }

 private:
  char folder_[32] = "/tmp/praas-test-library-XXXXXX";
};

TEST(Library, RegisteredFunctionsAreOfTheCInterface) {
  const auto functions = FunctionsOf(PRAAS_TEST_C_LIBRARY);
  const Library::Exported* const reverse = Named(functions, "reverse");
  ASSERT_NE(reverse, nullptr);
  EXPECT_EQ(reverse->abi, Abi::kC);
  EXPECT_EQ(reverse->flags, 0u);
  const Library::Exported* const idempotent = Named(functions, "idempotent");
  ASSERT_NE(idempotent, nullptr);
  EXPECT_EQ(idempotent->flags, segment::kFunctionIdempotent);
  EXPECT_TRUE(
      std::is_sorted(functions.begin(), functions.end(), [](const auto& a, const auto& b) { return a.name < b.name; }));
}

TEST(Library, OthersWithCLinkageAreRaw) {
  const auto functions = FunctionsOf(PRAAS_TEST_RFAAS_LIBRARY);
  ASSERT_NE(Named(functions, "copy"), nullptr);
  for (const Library::Exported& function : functions) {
    EXPECT_EQ(function.abi, Abi::kRaw) << function.name;
    EXPECT_NE(function.name[0], '_') << function.name;
  }
}

TEST(Library, OthersAreCalledThroughTheAdapterWhereThereIsOne) {
  auto library = Library::Open(PRAAS_TEST_PRAAS_LIBRARY);
  ASSERT_TRUE(library.ok()) << library.status().message();
  EXPECT_TRUE(library->has_adapter());
  const auto functions = FunctionsOf(PRAAS_TEST_PRAAS_LIBRARY);
  ASSERT_FALSE(functions.empty());
  for (const Library::Exported& function : functions) {
    EXPECT_EQ(function.abi, Abi::kAdapter) << function.name;
    EXPECT_EQ(function.name.find("praas_"), std::string::npos) << function.name;
  }
}

TEST(Library, OnlyItsOwnSymbolsAreFound) {
  auto library = Library::Open(PRAAS_TEST_RFAAS_LIBRARY);
  ASSERT_TRUE(library.ok());
  EXPECT_NE(library->Find("copy"), nullptr);
  EXPECT_EQ(library->Find("printf"), nullptr) << "of the C library it is linked with";
  EXPECT_EQ(library->Find("no such symbol"), nullptr);
}

TEST(Library, WhatCannotBeLoadedSaysWhy) {
  const auto why = [](const std::string& path) {
    auto library = Library::Open(path);
    EXPECT_FALSE(library.ok());
    EXPECT_EQ(library.status().code(), Code::kWorkerStart);
    return library.status().message();
  };
  EXPECT_NE(why("/nowhere/lib.so").find("/nowhere/lib.so"), std::string::npos);
  EXPECT_NE(why("/etc/hostname").find("/etc/hostname"), std::string::npos);
  const Compiled needs("int missing_one(void); int f(void) { return missing_one(); }");
  EXPECT_NE(why(needs.path()).find("missing_one"), std::string::npos);
}

TEST(Library, OfAnotherVersionOfTheInterfaceIsRefused) {
  const Compiled other(
      "struct { unsigned version, flags; void* run; const char* name; } praas_function_f = {999, 0, 0, \"f\"};");
  auto library = Library::Open(other.path());
  ASSERT_TRUE(library.ok()) << library.status().message();
  const auto functions = library->Functions();
  ASSERT_FALSE(functions.ok());
  EXPECT_NE(functions.status().message().find("999"), std::string::npos) << functions.status().message();
  const auto loaded = LoadFunctions({{.name = "f", .symbol = "f", .path = other.path(), .abi = Abi::kC}});
  EXPECT_FALSE(loaded.ok());
}

TEST(Library, OneThatLooksBesideItselfIsNotRelocatable) {
  const Compiled plain("unsigned f(void* a, unsigned n, void* r) { return 0; }");
  EXPECT_TRUE(Library::Open(plain.path())->relocatable());
  const Compiled origin("unsigned f(void* a, unsigned n, void* r) { return 0; }", "-Wl,-rpath,'$ORIGIN/deps'");
  EXPECT_FALSE(Library::Open(origin.path())->relocatable());
  const auto described = DescribeLibrary(origin.path());
  ASSERT_TRUE(described.ok());
  EXPECT_EQ(*described, "{\"library\":\"" + origin.path() +
                            "\",\"adapter\":false,\"relocatable\":false,\"functions\":[{\"name\":\"f\",\"abi\":\"raw\","
                            "\"flags\":0}]}");
}

TEST(Library, BothKindsOfHashTablesAreUnderstood) {
  for (const char* style : {"-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv", "-Wl,--hash-style=both"}) {
    const Compiled library(
        "unsigned f(void* a, unsigned n, void* r) { return 0; } static int hidden(void) { return 1; } "
        "int (*use)(void) = hidden;",
        style);
    const auto functions = FunctionsOf(library.path());
    ASSERT_EQ(functions.size(), 1u) << style;
    EXPECT_EQ(functions[0].name, "f");
  }
}

TEST(LoadFunctions, NamesLibraryAndSymbolOfWhatIsMissing) {
  for (const Abi abi : {Abi::kC, Abi::kRaw, Abi::kAdapter}) {
    const auto functions = LoadFunctions(
        {{.name = "f", .symbol = "absent", .path = PRAAS_TEST_RFAAS_LIBRARY, .abi = abi, .max_output_bytes = 1}});
    ASSERT_FALSE(functions.ok());
    EXPECT_NE(functions.status().message().find("absent"), std::string::npos) << functions.status().message();
    EXPECT_NE(functions.status().message().find("rfaas"), std::string::npos) << functions.status().message();
  }
}

}  // namespace
}  // namespace praas::function
