// Python face of etnet/ops/confusion_matrix.hpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "etnet/ops/confusion_matrix.hpp"
#include "pointer.hpp"

namespace py = pybind11;

namespace etnet {
namespace {

struct NamedType {
    const char* name;
    IntegerType type;
    std::size_t bytes;
};

constexpr std::array<NamedType, 8> kTypes{{{"int8", IntegerType::int8, 1},
                                           {"uint8", IntegerType::uint8, 1},
                                           {"int16", IntegerType::int16, 2},
                                           {"uint16", IntegerType::uint16, 2},
                                           {"int32", IntegerType::int32, 4},
                                           {"uint32", IntegerType::uint32, 4},
                                           {"int64", IntegerType::int64, 8},
                                           {"uint64", IntegerType::uint64, 8}}};

NamedType type_of(const std::string& name, const char* argument) {
    for (const NamedType& known : kTypes) {
        if (name == known.name) return known;
    }
    fail(argument, " is '", name, "'; expected an integer type of 8, 16, 32 or 64 bits");
}

bool count(const ConfusionMatrixSizes& sizes, std::uintptr_t labels, const std::string& labels_type,
           std::uintptr_t target, const std::string& target_type, std::uintptr_t where,
           std::optional<std::int64_t> ignore_index, std::uintptr_t counts, std::uintptr_t workspace,
           std::int64_t workspace_bytes) {
    const NamedType labels_as = type_of(labels_type, "labels_type");
    const NamedType target_as = type_of(target_type, "target_type");
    ConfusionMatrixArguments arguments;
    arguments.sizes = sizes;
    arguments.labels = pointer<const std::byte>(labels, "labels", labels_as.bytes);
    arguments.labels_type = labels_as.type;
    arguments.target = pointer<const std::byte>(target, "target", target_as.bytes);
    arguments.target_type = target_as.type;
    arguments.where = pointer<const std::uint8_t>(where, "where");
    arguments.has_ignore_index = ignore_index.has_value();
    arguments.ignore_index = ignore_index.value_or(0);
    arguments.counts = pointer<std::int64_t>(counts, "counts");
    arguments.workspace = pointer<std::byte>(workspace, "workspace", 64);
    arguments.workspace_bytes = workspace_bytes;
    const py::gil_scoped_release released;
    return confusion_matrix(arguments);
}

}  // namespace

void bind_confusion(py::module_& module) {
    using py::arg;
    py::class_<ConfusionMatrixSizes>(module, "ConfusionMatrixSizes", "Sizes that decide about scratch memory.")
        .def(py::init([](std::int64_t pixels, std::int64_t classes, int threads) {
                 return ConfusionMatrixSizes{pixels, classes, threads};
             }),
             py::kw_only(), arg("pixels"), arg("classes"), arg("threads"));
    module.def("confusion_matrix_workspace_bytes", &confusion_matrix_workspace_bytes, arg("sizes"),
               "Bytes of scratch memory, aligned to 64, that confusion_matrix needs.");
    module.def(
        "confusion_matrix", &count, arg("sizes"), py::kw_only(), arg("labels"), arg("labels_type"), arg("target"),
        arg("target_type"), arg("where"), arg("ignore_index"), arg("counts"), arg("workspace"), arg("workspace_bytes"),
        "Counts pairs of classes; False if a value is no class. See csrc/include/etnet/ops/confusion_matrix.hpp.");
}

}  // namespace etnet
