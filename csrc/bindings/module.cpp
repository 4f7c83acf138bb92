// The module etnet._native. python/etnet/_native.pyi describes it; etnet.ops._launch and
// etnet.ndops are the only callers.
#include <pybind11/pybind11.h>

namespace etnet {
void bind_confusion(pybind11::module_& module);
void bind_lovasz(pybind11::module_& module);
void bind_weighted_block(pybind11::module_& module);
}  // namespace etnet

#ifndef ETNET_WITH_CUDA
#define ETNET_WITH_CUDA ""
#define ETNET_CUDA_TARGETS ""
#endif

PYBIND11_MODULE(_native, module) {
    module.doc() = "Native kernels of etnet: functions of addresses and sizes.";
    // Raised whenever a signature changes; etnet.native refuses a module of another number.
    module.attr("INTERFACE") = 4;
    // How this module was built: versions of the compilers, and compute capabilities; "" for what was left out.
    pybind11::dict build;
    build["compiler"] = __VERSION__;
    build["cuda"] = ETNET_WITH_CUDA;
    build["cuda_architectures"] = ETNET_CUDA_TARGETS;
    module.attr("BUILD") = build;
    etnet::bind_confusion(module);
    etnet::bind_lovasz(module);
    etnet::bind_weighted_block(module);
}
