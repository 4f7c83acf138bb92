# Finds nvcc for ETNET_CUDA=ON|AUTO and sets ETNET_CUDA_FOUND; etnet_cuda_target(<target>) sets how kernels are compiled.
#
# The machine code is for the data-centre generations since Ampere and for consumer Blackwell, and the PTX of the last
# lets the driver compile for what comes later. cudart is linked statically and finds the driver at run time, so that the
# module imports where there is none.
include(CheckLanguage)

set(ETNET_CUDA_ARCHITECTURES "80 90 120" CACHE STRING "Compute capabilities to compile for; the last one also as PTX")
set(CMAKE_CUDA_ARCHITECTURES OFF) # given as -gencode below: CMake before 3.23 cannot say "machine code and PTX" briefly

check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
        set(etnet_cuda_problem "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 12.8, the first to know sm_120")
    else()
        set(ETNET_CUDA_FOUND TRUE)
    endif()
else()
    set(etnet_cuda_problem "no nvcc was found (name one with CUDACXX=/path/to/nvcc)")
endif()
if(NOT ETNET_CUDA_FOUND)
    if(ETNET_CUDA STREQUAL "ON")
        message(FATAL_ERROR "ETNET_CUDA=ON, but ${etnet_cuda_problem}")
    endif()
    message(STATUS "CUDA kernels are left out: ${etnet_cuda_problem}")
endif()

function(etnet_cuda_target target)
    set(codes)
    separate_arguments(architectures UNIX_COMMAND "${ETNET_CUDA_ARCHITECTURES}")
    foreach(architecture IN LISTS architectures)
        list(APPEND codes "SHELL:-gencode arch=compute_${architecture},code=sm_${architecture}")
        set(newest ${architecture})
    endforeach()
    list(APPEND codes "SHELL:-gencode arch=compute_${newest},code=compute_${newest}")
    target_compile_options(${target} PRIVATE ${codes} -O3 -Xcompiler=-Wall,-Wextra)
    target_include_directories(${target} PRIVATE csrc/include)
    set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
                          CUDA_VISIBILITY_PRESET hidden)
endfunction()
