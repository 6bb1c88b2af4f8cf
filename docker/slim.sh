#!/bin/sh
# Removes from a virtual environment what is needed only to build or test against its packages: the images have no
# compiler. The build and tests/docker check that the rest imports and trains.
#   sh slim.sh /opt/venv
set -eu
cd "$1"/lib/python3*/site-packages

before=$(du -sm . | cut -f1)

# Static libraries.
find . -name '*.a' -delete

# C++ headers. Triton's own remain: a derived image with a compiler needs them for Triton's driver.
rm -rf tensorflow/include torch/include triton/include
find nvidia -type d -name include -prune -exec rm -rf {} + 2>/dev/null || true

# Packages' own tests. Only "tests": modules named "test" and "testing" are public in TensorFlow and torch.
find . -type d -name tests -prune -exec rm -rf {} +

# Build tools: the protobuf compiler, and libclang, which TensorFlow requires but never loads.
rm -rf torch/bin/protoc* clang/native

# CUDA libraries that neither framework nor cuDNN uses: cuSOLVER for several GPUs, the older NVRTC, the NVVM of nvcc.
# ptxas and libdevice remain, because XLA calls them.
rm -f nvidia/*/lib/libcusolverMg.so.* nvidia/*/lib/libnvrtc*.alt.so.* nvidia/cuda_nvcc/nvvm/lib64/libnvvm.so*

# CUPTI copies that only Triton's profiler (proton) loads; torch's profiler has its own.
rm -rf triton/backends/nvidia/lib/cupti*

echo "slim: ${before} MiB -> $(du -sm . | cut -f1) MiB"
