package asm

// acc checks that r is AL, AX or EAX, the only registers of port instructions.
func acc(r Reg) Reg {
	if r != AL && r != AX && r != EAX {
		panic("asm: port access with another register than the accumulator")
	}
	return r
}

// In reads a port below 256 into AL, AX or EAX.
func (a *Asm) In(r Reg, port byte) *Asm { return a.op(acc(r).width(), 0xe4).emit(port) }

// Out writes AL, AX or EAX to a port below 256.
func (a *Asm) Out(port byte, r Reg) *Asm { return a.op(acc(r).width(), 0xe6).emit(port) }

// InDX reads the port that DX names into AL, AX or EAX.
func (a *Asm) InDX(r Reg) *Asm { return a.op(acc(r).width(), 0xec) }

// OutDX writes AL, AX or EAX to the port that DX names.
func (a *Asm) OutDX(r Reg) *Asm { return a.op(acc(r).width(), 0xee) }

// RepOuts writes CX elements of 8, 16 or 32 bits from DS:SI to the port that DX names.
func (a *Asm) RepOuts(width int) *Asm { return a.emit(0xf3).op(width, 0x6e) }

// RepIns reads CX elements of 8, 16 or 32 bits from the port that DX names to ES:DI.
func (a *Asm) RepIns(width int) *Asm { return a.emit(0xf3).op(width, 0x6c) }

// Jmp jumps to a label.
func (a *Asm) Jmp(label string) *Asm { return a.emit(0xe9).rel(label) }

// rel emits a displacement of the mode's size.
func (a *Asm) rel(label string) *Asm {
	size := 2
	if a.mode == Long {
		size = 4
	}
	a.fixups = append(a.fixups, fixup{len(a.code), size, label})
	return a.emit(make([]byte, size)...)
}

// Lidt loads the interrupt descriptor table register.
func (a *Asm) Lidt(m Mem) *Asm { return a.emit(0x0f, 0x01).mem(3, m) }

// MovqXMM copies the low half of XMM0 to XMM7 to a 64-bit register.
func (a *Asm) MovqXMM(dst Reg, xmm byte) *Asm {
	return a.emit(0x66).prefix(dst.width()).emit(0x0f, 0x7e, 0xc0|xmm<<3|dst.num())
}

// Hlt waits for an interrupt.
func (a *Asm) Hlt() *Asm { return a.emit(0xf4) }

// Cli forbids interrupts.
func (a *Asm) Cli() *Asm { return a.emit(0xfa) }

// Sti allows interrupts after the next instruction.
func (a *Asm) Sti() *Asm { return a.emit(0xfb) }

// Nop does nothing.
func (a *Asm) Nop() *Asm { return a.emit(0x90) }

// Iret returns from an interrupt of the mode's width.
func (a *Asm) Iret() *Asm {
	if a.mode == Long {
		a.prefix(64)
	}
	return a.emit(0xcf)
}

// UD2 raises an invalid-opcode exception.
func (a *Asm) UD2() *Asm { return a.emit(0x0f, 0x0b) }

// CPUID asks what EAX and ECX name.
func (a *Asm) CPUID() *Asm { return a.emit(0x0f, 0xa2) }

// Rdmsr reads the register that ECX names into EDX:EAX.
func (a *Asm) Rdmsr() *Asm { return a.emit(0x0f, 0x32) }

// Wrmsr writes EDX:EAX to the register that ECX names.
func (a *Asm) Wrmsr() *Asm { return a.emit(0x0f, 0x30) }
