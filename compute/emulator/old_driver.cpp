// A driver that is too old: it says so, and has nothing else.
#define OLD extern "C" __attribute__((visibility("default"))) int

OLD cuInit(unsigned) { return 0; }
OLD cuDriverGetVersion(int *version) {
    *version = 11040;
    return 0;
}
OLD cuDeviceGetCount(int *count) {
    *count = 1;
    return 0;
}
