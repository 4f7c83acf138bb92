// The module etnet._native. python/etnet/_native.pyi describes it; etnet.ops._launch is the only caller.
#include <pybind11/pybind11.h>

namespace etnet {
void bind_lovasz(pybind11::module_& module);
}

PYBIND11_MODULE(_native, module) {
    module.doc() = "Native kernels of etnet: functions of addresses and sizes.";
    // Raised whenever a signature changes; etnet.native refuses a module of another number.
    module.attr("INTERFACE") = 2;
    etnet::bind_lovasz(module);
}
