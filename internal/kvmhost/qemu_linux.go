package kvmhost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/prep"
	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// goodQEMU is the first major version that runs several emulated CPUs reliably.
const goodQEMU = 10

// kernelArgs is the guest kernel's command line. A panic ends the machine at
// once; probing for hardware that is not there is left out.
const kernelArgs = "console=ttyS0 8250.nr_uarts=1 quiet loglevel=4 panic=-1 reboot=t mitigations=off tsc=reliable " +
	"no_timer_check random.trust_cpu=on cryptomgr.notests audit=0 rcupdate.rcu_expedited=1 nowatchdog"

// cpuModel is a CPU with AMD's virtualization. The features taken away are those
// that the emulation lacks; it would complain about each.
const cpuModel = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec"

// Numbers of the files that QEMU inherits. No channel has a name in the file
// system: nothing to clean up, and its end is the end of the process.
const (
	fdControl = iota + 3
	fdStdin
	fdStdout
	fdStderr
	fdConsole
	fdMonitor
	fdDebugger
	fdInitrd
)

// emulator is a running QEMU and this side's ends of its channels.
type emulator struct {
	control, stdin, stdout, stderr, console, monitor, debugger *os.File

	cpus    int
	healer  healer
	errText ring          // what QEMU itself printed
	exited  chan struct{} // closed when the process is gone
	kill    func()
}

// shape is what makes two emulated machines the same to the software in them.
type shape struct {
	host   prep.Host
	memory int // MiB
	cpus   int
	shares int // number of share devices
	initrd []byte
}

// escape doubles commas, which separate the parts of a QEMU option.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// arguments is QEMU's command line without what may differ between a frozen
// machine and its copies.
func (m *shape) arguments() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,vmport=off,smbus=off,sata=off,usb=off,i8042=off,hpet=off",
		"-accel", "tcg,thread=multi,tb-size=512",
		"-cpu", cpuModel,
		"-smp", strconv.Itoa(m.cpus),
		"-m", strconv.Itoa(m.memory),
		"-kernel", m.host.Kernel,
		"-initrd", fmt.Sprintf("/proc/self/fd/%d", fdInitrd),
		"-append", kernelArgs,
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", fdConsole), "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fdMonitor), "-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=debugger,fd=%d", fdDebugger),
		"-device", "virtio-serial-pci,max_ports=8",
		"-drive", "if=none,id=scratch,format=raw,cache=unsafe,snapshot=on,file=" + escape(m.host.Scratch),
		"-device", "virtio-blk-pci,drive=scratch",
	}
	if m.host.QEMU.QuickFirmware {
		args = append(args, "-bios", "qboot.rom")
	}
	for i, name := range []string{wire.PortControl, wire.PortStdin, wire.PortStdout, wire.PortStderr} {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=%s,fd=%d", name, fdControl+i),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s,nr=%d", name, name, i+1))
	}
	return args
}

// shareArguments adds the outer root and the shares. Devices without a share
// to show get the empty directory.
func (m *shape) shareArguments(dirs []string, empty string) []string {
	args := []string{"-virtfs", "local,path=/,mount_tag=" + wire.RootTag + ",security_model=none,readonly=on,multidevs=remap"}
	for i := range m.shares {
		dir := empty
		if i < len(dirs) {
			dir = dirs[i]
		}
		args = append(args, "-virtfs", "local,path="+escape(dir)+",mount_tag="+wire.ShareTag(i)+",security_model=none,multidevs=remap")
	}
	return args
}

// launch starts QEMU.
func (m *shape) launch(extra ...string) (*emulator, error) {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	e := &emulator{cpus: m.cpus, exited: make(chan struct{})}
	for _, ours := range []**os.File{&e.control, &e.stdin, &e.stdout, &e.stderr, &e.console, &e.monitor, &e.debugger} {
		a, b, err := channel()
		if err != nil {
			e.closeFiles()
			return nil, err
		}
		*ours, theirs = a, append(theirs, b)
	}
	initrd, err := memoryFile(m.initrd)
	if err != nil {
		e.closeFiles()
		return nil, err
	}
	theirs = append(theirs, initrd)

	cmd := exec.Command(m.host.QEMU.Path, append(m.arguments(), extra...)...)
	cmd.ExtraFiles = theirs
	cmd.Stdout, cmd.Stderr = &e.errText, &e.errText
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // a terminal's ^C is for the command, not for the emulator
		Pdeathsig: syscall.SIGKILL,
	}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, so that
		// thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(e.exited)
		}
	}()
	if err := <-started; err != nil {
		e.closeFiles()
		return nil, err
	}
	e.kill = func() { cmd.Process.Kill() }
	return e, nil
}

// stop ends the emulator and waits until it is gone.
func (e *emulator) stop() {
	e.kill()
	<-e.exited
	e.closeFiles()
}

func (e *emulator) closeFiles() {
	for _, f := range []*os.File{e.control, e.stdin, e.stdout, e.stderr, e.console, e.monitor, e.debugger} {
		if f != nil {
			f.Close()
		}
	}
}

// channel makes a connected pair, the first end for us and non-blocking.
func channel() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// memoryFile keeps the initial root in memory, where QEMU reads it by number.
func memoryFile(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("initrd", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "initrd")
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
