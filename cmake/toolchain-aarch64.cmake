# 64-bit ARM, from the Cortex-A53 (Raspberry Pi 3, Zero 2) on. See scripts/test-arm.
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(THIMBLE_TRIPLET aarch64-linux-gnu)
set(THIMBLE_ARCH arm64)
set(flags "-mtune=cortex-a53")
set(CMAKE_C_FLAGS_INIT "${flags}")
set(CMAKE_CXX_FLAGS_INIT "${flags}")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -cpu cortex-a53)
include(${CMAKE_CURRENT_LIST_DIR}/cross_debian.cmake)
