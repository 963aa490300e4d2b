package df11

// Part is one of the six parts that a group has in the files.
type Part uint32

const (
	// PartLuts are the look-up rows, then the row of code lengths: 256 bytes each.
	PartLuts Part = iota
	// PartEncodedExponent are the Huffman-coded exponents.
	PartEncodedExponent
	// PartSignMantissa is one byte for each weight: its sign in bit 7, its mantissa below.
	PartSignMantissa
	// PartOutputPositions are a little-endian uint32 for each block of 4096 code bytes: its first weight; then the number of
	// weights.
	PartOutputPositions
	// PartGaps are five bits for each 8 code bytes: the bit at which the first code that starts there begins.
	PartGaps
	// PartSplitPositions are a little-endian int64 for each tensor but the last: the weights up to its end.
	PartSplitPositions
	// Parts is how many there are.
	Parts
)

// PartInfo is where a part of a group lies.
type PartInfo struct {
	// File is the path of the file, FileOffset the part's first byte there, Bytes how many it has.
	File              string
	FileOffset, Bytes uint64
}

// GroupPart says where a part of a group lies, for programs that read or hash files themselves.
func (m *Model) GroupPart(group int, part Part) (PartInfo, error) {
	const op = "group part"
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return PartInfo{}, err
	}
	defer m.leave()
	p, e := m.c.Part(uint64(group), uint32(part))
	if e != nil {
		return PartInfo{}, of(op, e)
	}
	return PartInfo{p.File, p.Offset, p.Bytes}, nil
}
