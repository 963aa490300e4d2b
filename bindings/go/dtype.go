package df11

import (
	"strconv"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// DType is the type of a tensor's elements.
type DType uint32

// The types of elements that safetensors files have.
const (
	DTypeUnknown DType = iota // a type that this version does not know
	DTypeBF16
	DTypeF16
	DTypeF32
	DTypeF64
	DTypeBool
	DTypeU8
	DTypeI8
	DTypeU16
	DTypeI16
	DTypeU32
	DTypeI32
	DTypeU64
	DTypeI64
	DTypeF8E5M2
	DTypeF8E4M3
	DTypeF8E8M0
	DTypeF4
	DTypeF6E2M3
	DTypeF6E3M2
	DTypeC64
	DTypeF8E4M3FNUZ
	DTypeF8E5M2FNUZ
)

var dtypeNames = [...]string{"unknown", "BF16", "F16", "F32", "F64", "BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64",
	"I64", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}

// String returns the type's name in safetensors files.
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return "dtype " + strconv.Itoa(int(d))
}

// Bytes returns the bytes of an element, or 0 if they are no whole number, as for the types of 4 and 6 bits, or the type
// is unknown.
func (d DType) Bytes() int { return cdf11.DTypeBytes(uint32(d)) }
