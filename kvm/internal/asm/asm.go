// Package asm assembles the few instructions that guest snippets in tests are made of, for
// 16-bit real mode and 64-bit long mode. Its own test has every encoding disassembled.
//
// References are to Intel's manual, volume 2. Misuse, such as a 64-bit register in real mode,
// panics: snippets are constants of a test.
package asm

import (
	"encoding/binary"
	"fmt"
)

// Mode is the width of code, as x86asm.Decode takes it.
type Mode int

// The modes of snippets.
const (
	Real Mode = 16
	Long Mode = 64
)

// Reg is a general register: its width in the high bits, its number in the low ones.
type Reg uint16

const (
	width8  = 8 << 4
	width16 = 16 << 4
	width32 = 32 << 4
	width64 = 64 << 4
)

// General registers, in the processor's numbering.
const (
	AL Reg = width8 + iota
	CL
	DL
	BL
)

const (
	AX Reg = width16 + iota
	CX
	DX
	BX
	SP
	BP
	SI
	DI
)

const (
	EAX Reg = width32 + iota
	ECX
	EDX
	EBX
	ESP
	EBP
	ESI
	EDI
)

const (
	RAX Reg = width64 + iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
)

func (r Reg) width() int { return int(r >> 4) }
func (r Reg) num() byte  { return byte(r & 15) }

// Seg is a segment register.
type Seg byte

// Segment registers that a snippet loads.
const (
	ES Seg = 0
	SS Seg = 2
	DS Seg = 3
)

// Mem is a memory operand.
type Mem struct {
	base Reg
	abs  uint16
}

// Abs is the operand [addr] of real mode, relative to DS.
func Abs(addr uint16) Mem { return Mem{abs: addr} }

// At is the operand [base] of long mode; base is a 64-bit register other than RSP and RBP.
func At(base Reg) Mem { return Mem{base: base} }

// Asm collects a snippet. The zero value is not useful; see New.
type Asm struct {
	mode   Mode
	code   []byte
	labels map[string]int
	fixups []fixup
}

// fixup is a 16- or 32-bit displacement to fill in.
type fixup struct {
	at, size int
	label    string
}

// New starts a snippet.
func New(mode Mode) *Asm { return &Asm{mode: mode, labels: make(map[string]int)} }

// Bytes resolves the labels and returns the code. It is position-independent.
func (a *Asm) Bytes() []byte {
	for _, f := range a.fixups {
		target, ok := a.labels[f.label]
		if !ok {
			panic("asm: no label " + f.label)
		}
		d := target - (f.at + f.size)
		if f.size == 2 {
			binary.LittleEndian.PutUint16(a.code[f.at:], uint16(d))
		} else {
			binary.LittleEndian.PutUint32(a.code[f.at:], uint32(d))
		}
	}
	return a.code
}

// Label names the current place.
func (a *Asm) Label(name string) *Asm {
	a.labels[name] = len(a.code)
	return a
}

// Offset returns where a label is, in bytes from the start.
func (a *Asm) Offset(name string) uint64 {
	off, ok := a.labels[name]
	if !ok {
		panic("asm: no label " + name)
	}
	return uint64(off)
}

func (a *Asm) emit(b ...byte) *Asm {
	a.code = append(a.code, b...)
	return a
}

// prefix emits what selects an operand width in the current mode.
func (a *Asm) prefix(width int) *Asm {
	switch {
	case width == 16 && a.mode == Long, width == 32 && a.mode == Real:
		return a.emit(0x66)
	case width == 64 && a.mode == Long:
		return a.emit(0x48) // REX.W
	case width == 64:
		panic("asm: 64-bit operand in real mode")
	}
	return a
}

// op emits a prefix and an opcode whose low bit says "wider than a byte".
func (a *Asm) op(width int, opcode byte) *Asm {
	a.prefix(width)
	if width == 8 {
		return a.emit(opcode)
	}
	return a.emit(opcode | 1)
}

// mem emits a ModRM byte for a memory operand, and its displacement.
func (a *Asm) mem(reg byte, m Mem) *Asm {
	switch {
	case m.base == 0 && a.mode == Real:
		a.emit(reg<<3 | 6) // mod 00, rm 110: disp16
		a.code = binary.LittleEndian.AppendUint16(a.code, m.abs)
	case m.base.width() == 64 && a.mode == Long && m.base != RSP && m.base != RBP:
		a.emit(reg<<3 | m.base.num())
	default:
		panic(fmt.Sprintf("asm: no operand %+v in mode %d", m, a.mode))
	}
	return a
}

// Mov loads a constant.
func (a *Asm) Mov(r Reg, v uint64) *Asm {
	a.prefix(r.width())
	switch r.width() {
	case 8:
		return a.emit(0xb0|r.num(), byte(v))
	case 16:
		a.code = binary.LittleEndian.AppendUint16(append(a.code, 0xb8|r.num()), uint16(v))
	case 32:
		a.code = binary.LittleEndian.AppendUint32(append(a.code, 0xb8|r.num()), uint32(v))
	case 64:
		a.code = binary.LittleEndian.AppendUint64(append(a.code, 0xb8|r.num()), v)
	}
	return a
}

// MovReg copies a register to another of the same width.
func (a *Asm) MovReg(dst, src Reg) *Asm {
	return a.op(src.width(), 0x88).emit(0xc0 | src.num()<<3 | dst.num())
}

// Add adds src to dst.
func (a *Asm) Add(dst, src Reg) *Asm {
	return a.op(src.width(), 0x00).emit(0xc0 | src.num()<<3 | dst.num())
}

// Inc adds one.
func (a *Asm) Inc(r Reg) *Asm { return a.op(r.width(), 0xfe).emit(0xc0 | r.num()) }

// Load reads memory.
func (a *Asm) Load(dst Reg, m Mem) *Asm { return a.op(dst.width(), 0x8a).mem(dst.num(), m) }

// Store writes memory.
func (a *Asm) Store(m Mem, src Reg) *Asm { return a.op(src.width(), 0x88).mem(src.num(), m) }

// MovSeg loads a segment register from a 16-bit one.
func (a *Asm) MovSeg(s Seg, r Reg) *Asm { return a.emit(0x8e, 0xc0|byte(s)<<3|r.num()) }
