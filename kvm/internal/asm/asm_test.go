package asm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/arch/x86/x86asm"
)

// disassemble decodes code with somebody else's disassembler.
func disassemble(t *testing.T, mode Mode, code []byte) []string {
	t.Helper()
	var out []string
	for pc := 0; pc < len(code); {
		inst, err := x86asm.Decode(code[pc:], int(mode))
		if err != nil {
			t.Fatalf("at %d, % x: %v", pc, code[pc:], err)
		}
		out = append(out, strings.TrimSpace(x86asm.IntelSyntax(inst, uint64(pc), nil)))
		pc += inst.Len
	}
	return out
}

func TestReal(t *testing.T) {
	a := New(Real).
		Label("start").
		Mov(AL, 0x12).Mov(BL, 0xff).Mov(AX, 0x1234).Mov(DI, 0x8000).Mov(EAX, 0x12345678).
		MovReg(BX, AX).MovReg(ECX, EAX).MovReg(DL, AL).
		Add(AX, BX).Add(EAX, EBX).Inc(AX).Inc(AL).Inc(ECX).
		Load(AL, Abs(0x10)).Load(AX, Abs(0x20)).Load(EDX, Abs(0xfff0)).
		Store(Abs(0x10), AL).Store(Abs(0x20), CX).Store(Abs(0x30), EAX).
		MovSeg(DS, AX).MovSeg(ES, BX).MovSeg(SS, AX).
		In(AL, 0x10).In(AX, 0x10).In(EAX, 0x10).
		Out(0x10, AL).Out(0x20, AX).Out(0x30, EAX).
		InDX(AL).InDX(AX).InDX(EAX).OutDX(AL).OutDX(AX).OutDX(EAX).
		RepOuts(8).RepOuts(16).RepOuts(32).RepIns(8).RepIns(16).RepIns(32).
		Lidt(Abs(0x100)).
		Cli().Sti().Nop().Hlt().Iret().UD2().CPUID().Rdmsr().Wrmsr().
		Jmp("start").Jmp("end").Nop().Label("end").Hlt()
	want := []string{
		"mov al, 0x12", "mov bl, 0xff", "mov ax, 0x1234", "mov di, -0x8000", "mov eax, 0x12345678",
		"mov bx, ax", "mov ecx, eax", "mov dl, al",
		"add ax, bx", "add eax, ebx", "inc ax", "inc al", "inc ecx",
		"mov al, byte ptr [0x10]", "mov ax, word ptr [0x20]", "mov edx, dword ptr [0xfff0]",
		"mov byte ptr [0x10], al", "mov word ptr [0x20], cx", "mov dword ptr [0x30], eax",
		"mov ds, ax", "mov es, bx", "mov ss, ax",
		"in al, 0x10", "in ax, 0x10", "in eax, 0x10",
		"out 0x10, al", "out 0x20, ax", "out 0x30, eax",
		"in al, dx", "in ax, dx", "in eax, dx", "out dx, al", "out dx, ax", "out dx, eax",
		"rep outsb", "rep outsw", "rep data32 outsd", "rep insb", "rep insw", "rep data32 insd",
		"lidt ptr [0x100]",
		"cli", "sti", "nop", "hlt", "iret", "ud2", "cpuid", "rdmsr", "wrmsr",
		"jmp 0x0", "jmp 0x80", "nop", "hlt",
	}
	compare(t, Real, a, want)
}

func TestLong(t *testing.T) {
	a := New(Long).
		Label("start").
		Mov(AL, 0x12).Mov(AX, 0x1234).Mov(ECX, 0xc0000102).Mov(RBX, 0x1122334455667788).
		MovReg(RDI, RAX).MovReg(EDX, ECX).MovReg(BX, DX).
		Add(RAX, RBX).Inc(RCX).Inc(EDX).
		Load(AL, At(RBX)).Load(AX, At(RBX)).Load(EAX, At(RSI)).Load(RDX, At(RDI)).
		Store(At(RBX), AL).Store(At(RBX), AX).Store(At(RSI), EAX).Store(At(RDI), RDX).
		In(AL, 0x10).In(AX, 0x10).In(EAX, 0x10).Out(0x10, AL).Out(0x10, AX).Out(0x10, EAX).
		MovqXMM(RAX, 0).MovqXMM(RBX, 5).
		Iret().Hlt().Jmp("start")
	want := []string{
		"mov al, 0x12", "mov ax, 0x1234", "mov ecx, -0x3ffffefe", "mov rbx, 0x1122334455667788",
		"mov rdi, rax", "mov edx, ecx", "mov bx, dx",
		"add rax, rbx", "inc rcx", "inc edx",
		"mov al, byte ptr [rbx]", "mov ax, word ptr [rbx]", "mov eax, dword ptr [rsi]", "mov rdx, qword ptr [rdi]",
		"mov byte ptr [rbx], al", "mov word ptr [rbx], ax", "mov dword ptr [rsi], eax", "mov qword ptr [rdi], rdx",
		"in al, 0x10", "in ax, 0x10", "in eax, 0x10", "out 0x10, al", "out 0x10, ax", "out 0x10, eax",
		"movq rax, xmm0", "movq rbx, xmm5",
		"iretq", "hlt", "jmp 0x0",
	}
	compare(t, Long, a, want)
}

func compare(t *testing.T, mode Mode, a *Asm, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, disassemble(t, mode, a.Bytes())); diff != "" {
		t.Errorf("disassembly differs (-want +got):\n%s", diff)
	}
}

func TestMisuse(t *testing.T) {
	tests := map[string]func(){
		"64-bit register in real mode": func() { New(Real).Mov(RAX, 1) },
		"base register in real mode":   func() { New(Real).Load(AX, At(RBX)) },
		"absolute in long mode":        func() { New(Long).Load(AX, Abs(4)) },
		"stack pointer as base":        func() { New(Long).Load(AX, At(RSP)) },
		"port access with BX":          func() { New(Real).Out(1, BX) },
		"unknown label":                func() { New(Real).Jmp("nowhere").Bytes() },
		"unknown offset":               func() { New(Real).Offset("nowhere") },
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
