package df11

// Part names one of the six parts that a group has in the files.
type Part uint32

const (
	// PartLuts are the look-up rows, then the row of code lengths: 256 bytes each.
	PartLuts Part = iota
	// PartEncodedExponent are the Huffman-coded exponents.
	PartEncodedExponent
	// PartSignMantissa has one byte for each weight: its sign in bit 7, its mantissa below.
	PartSignMantissa
	// PartOutputPositions has a little-endian uint32 for each block of 4096 code bytes, the number of its first weight,
	// and at the end the number of weights.
	PartOutputPositions
	// PartGaps has five bits for each 8 code bytes: the bit at which the first code that starts there begins.
	PartGaps
	// PartSplitPositions has a little-endian int64 for each tensor except the last: the number of weights up to its
	// end.
	PartSplitPositions
	// Parts is the number of parts.
	Parts
)

// PartInfo describes where a part of a group is stored.
type PartInfo struct {
	// File is the path of the file, FileOffset the position of the part's first byte in it, and DataBytes its size.
	File                  string
	FileOffset, DataBytes uint64
}

// GroupPart describes where a part of a group is stored, for programs that read or hash files themselves.
func (m *Model) GroupPart(group int, part Part) (PartInfo, error) {
	const op = "group part"
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return PartInfo{}, err
	}
	defer m.leave()
	p, e := m.c.GroupPart(uint64(group), uint32(part))
	if e != nil {
		return PartInfo{}, result(op, e)
	}
	return PartInfo{p.File, p.Offset, p.DataBytes}, nil
}
