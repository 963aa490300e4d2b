// Every constant on which the kernels and the host must agree, and the tuning of each architecture. One `#define NAME
// number` a line and nothing else, because a test parses this file too: it compares it with the library's mirror of it.
// decode.cuh and README.md give the reasons.

// The shape of an image.
#define DF11_LANE_WEIGHTS 104
#define DF11_WINDOW_BITS 11
#define DF11_NIBBLE_WINDOW_BITS 12

// Shared memory of a decoding block, in bytes: TABLE_SMALL for a table of at most that many bytes, else TABLE_LARGE;
// and for each warp 16 * CODE_UNITS of code and 32 * LANE_WEIGHTS exponents.
#define DF11_TABLE_SMALL 16384
#define DF11_TABLE_LARGE 32768
#define DF11_TABLE_NIBBLES 20480
#define DF11_CODE_UNITS 96

// Units of code after a tile's last weight that its lanes may read.
#define DF11_AHEAD_UNITS 3

// The most jobs of one launch of df11_decode_many.
#define DF11_MOST_JOBS 32

// Warps of a decoding block, by compute capability (major * 10 + minor); an unknown one takes the nearest below.
// The kernels run with any number from 1 to MOST_WARPS.
#define DF11_WARPS_75 6
#define DF11_WARPS_80 10
#define DF11_WARPS_86 14
#define DF11_WARPS_89 14
#define DF11_WARPS_90 12
#define DF11_WARPS_100 12
#define DF11_WARPS_120 14
#define DF11_MOST_WARPS 24

// df11_index: threads of a block, and its shared memory in addition to the table in bytes.
#define DF11_INDEX_THREADS 512
#define DF11_INDEX_SHARED 5248

// df11_linear_decode and df11_linear_make: warps of a block, and the bytes of shared memory of the latter.
#define DF11_LINEAR_WARPS 8
#define DF11_LINEAR_SHARED 512

// df11_multiply_*: the most matrices of a launch, and threads of a block: eight warps, each of which does a run of 512
// columns. ROWS are the most rows of tiles of a block, by the most vectors.
#define DF11_MULTIPLY_PARTS 8
#define DF11_MULTIPLY_THREADS 256
#define DF11_MULTIPLY_ROWS_1 16
#define DF11_MULTIPLY_ROWS_2 8
#define DF11_MULTIPLY_ROWS_8 4
