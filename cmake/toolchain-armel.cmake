# A Raspberry Pi Zero or 1: ARM1176, ARMv6 with VFPv2. Debian's armhf is ARMv7 and dies there with SIGILL; armel has the
# calling convention of machines without floating point, and `softfp` uses the hardware's inside it. armv6k and not
# armv6: 64-bit atomics. See scripts/test-arm.
set(CMAKE_SYSTEM_PROCESSOR armv6l)
set(THIMBLE_TRIPLET arm-linux-gnueabi)
set(THIMBLE_ARCH armel)
# Highway's emulated vectors, which newer compilers would get, are slower than our code for machines without any.
set(flags "-marm -march=armv6k -mtune=arm1176jzf-s -mfpu=vfpv2 -mfloat-abi=softfp -DHWY_COMPILE_ONLY_SCALAR")
set(CMAKE_C_FLAGS_INIT "${flags}")
# GCC notes at every use of some types that their calling convention was another before GCC 7.
set(CMAKE_CXX_FLAGS_INIT "${flags} -Wno-psabi")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-arm-static -cpu arm1176)
include(${CMAKE_CURRENT_LIST_DIR}/cross_debian.cmake)
