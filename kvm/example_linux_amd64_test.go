package kvm_test

import (
	"fmt"
	"log"
	"runtime"
	"unsafe"

	"github.com/hutchvm/hutch/kvm"
	"golang.org/x/sys/unix"
)

// A machine of one page that writes to a port and halts.
func Example() {
	sys, err := kvm.Open("/dev/kvm")
	if err != nil {
		log.Fatal(err)
	}
	defer sys.Close()
	vm, err := sys.CreateVM()
	if err != nil {
		log.Fatal(err)
	}
	defer vm.Close()

	mem, err := unix.Mmap(-1, 0, kvm.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		log.Fatal(err)
	}
	copy(mem, []byte{0xb0, '!', 0xe6, 0x10, 0xf4}) // mov al, '!'; out 0x10, al; hlt
	err = vm.SetMemoryRegion(kvm.MemoryRegion{
		Size: kvm.PageSize,
		// SAFETY: a mapping, which the collector does not know, kept until the program ends.
		HostAddr: uintptr(unsafe.Pointer(&mem[0])),
	})
	if err != nil {
		log.Fatal(err)
	}

	vcpu, err := vm.CreateVCPU(0)
	if err != nil {
		log.Fatal(err)
	}
	defer vcpu.Close()
	sregs, err := vcpu.SRegs()
	if err != nil {
		log.Fatal(err)
	}
	sregs.CS.Base, sregs.CS.Selector = 0, 0
	if err := vcpu.SetSRegs(sregs); err != nil {
		log.Fatal(err)
	}
	if err := vcpu.SetRegs(kvm.Regs{RFLAGS: 2}); err != nil {
		log.Fatal(err)
	}

	runtime.LockOSThread()
	for {
		exit, err := vcpu.Run()
		if err != nil {
			log.Fatal(err)
		}
		switch exit.Reason {
		case kvm.ExitIO:
			io, err := exit.IO()
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("port %#x: %q\n", io.Port, io.Data)
		case kvm.ExitHLT:
			return
		}
	}
}
