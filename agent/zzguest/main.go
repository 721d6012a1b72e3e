package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
)

func check(err error) {
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
}

func boot(ctx context.Context, upper bool) (*client.Agent, *exec.Cmd) {
	ln, err := vsock.ListenContextID(2, 1024, nil)
	check(err)
	args := strings.Fields("-machine microvm,acpi=off,rtc=on -accel kvm -cpu host -m 512 -nographic -nodefaults -no-reboot -chardev stdio,id=c -device virtio-serial-device -device virtconsole,chardev=c -kernel /tmp/zz/vmlinux -initrd /tmp/zz/init.cpio -device vhost-vsock-device,guest-cid=7 -drive if=none,id=b,file=/tmp/zz/base.img,format=raw,readonly=on -device virtio-blk-device,drive=b,serial=base -drive if=none,id=u,file=/tmp/zzu.img,format=raw -device virtio-blk-device,drive=u,serial=upper")
	args = append(args, "-append", "console=hvc0 reboot=t panic=-1 quiet loglevel=4 tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on")
	q := exec.Command("qemu-system-x86_64", args...)
	q.Stdout, q.Stderr = os.Stdout, os.Stderr
	start := time.Now()
	check(q.Start())
	a, err := client.Accept(ctx, ln, func(ctx context.Context) (net.Conn, error) { return vsock.Dial(7, 1025, nil) })
	check(err)
	ln.Close()
	b := a.Boot()
	fmt.Println("hello after", time.Since(start), "init", time.Duration(b.Init), "mounted +", time.Duration(b.Mounted-b.Init), "connected +", time.Duration(b.Connected-b.Mounted))
	s := &proto.Setup{Hostname: "testbox", Root: proto.Root{Base: proto.Disk{Serial: "base", FSType: "ext4"}}, Env: []string{"A=1"}, Time: time.Now().UnixNano(), Workdir: "/root", User: "root",
		Mounts: []proto.Mount{{Kind: proto.MountTmpfs, Target: "/mnt/x/y", Size: 1 << 20, NoExec: true}}}
	if upper {
		s.Root.Upper = proto.Disk{Device: "/dev/vdb", FSType: "ext4"}
	}
	start = time.Now()
	d, err := a.Setup(ctx, s)
	check(err)
	fmt.Println("setup", time.Since(start), "rooted +", time.Duration(d.Rooted-d.Received), "done +", time.Duration(d.Done-d.Rooted))
	return a, q
}

func run(ctx context.Context, a *client.Agent, req *proto.Exec) (string, proto.Exited) {
	p, err := a.Exec(ctx, req)
	if err != nil {
		return err.Error(), proto.Exited{}
	}
	out := ""
	for {
		ev, err := p.Next()
		if err != nil {
			return out + err.Error(), proto.Exited{}
		}
		out += string(ev.Data)
		if ev.Kind == client.EventExited {
			return out, ev.Exit
		}
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	img, _ := os.ReadFile("/tmp/zz/upper.img")
	os.WriteFile("/tmp/zzu.img", img, 0o644)
	for i := range 1 {
		a, q := boot(ctx, true)
		sh := func(s string) *proto.Exec { return &proto.Exec{Argv: []string{"sh", "-c", s}} }
		if i == 0 {
			start := time.Now()
			for range 20 {
				run(ctx, a, &proto.Exec{Argv: []string{"true"}})
			}
			fmt.Println("exec true:", time.Since(start)/20)
			start = time.Now()
			for range 20 {
				a.Ping(ctx)
			}
			fmt.Println("ping:", time.Since(start)/20)
			start = time.Now()
			for range 10 {
				run(ctx, a, &proto.Exec{Argv: []string{"true"}, Rlimits: []proto.Rlimit{{Resource: 7, Soft: 20, Hard: 20}}})
			}
			fmt.Println("limited true:", time.Since(start)/10)
			fmt.Println(run(ctx, a, sh("dd if=/dev/zero of=/dev/null bs=1M count=100; dd if=/dev/zero bs=64k count=1600 | dd of=/dev/null bs=64k; cut -d' ' -f14-15 /proc/1/stat; head -1 /proc/stat")))
			start = time.Now()
			p, err := a.Exec(ctx, sh("dd if=/dev/zero bs=1M count=100 2>/dev/null"))
			check(err)
			n := 0
			for {
				ev, err := p.Next()
				if err != nil {
					break
				}
				n += len(ev.Data)
			}
			el := time.Since(start)
			fmt.Println(run(ctx, a, sh("cut -d' ' -f14-15 /proc/1/stat; head -1 /proc/stat; grep softirq /proc/stat")))
			fmt.Println("stdout", n, el, float64(n)/1e6/el.Seconds(), "MB/s")
			start = time.Now()
			p, err = a.Exec(ctx, &proto.Exec{Argv: []string{"dd", "of=/dev/null", "bs=1M"}, Stdin: true})
			check(err)
			go func() {
				f, _ := os.Open("/dev/zero")
				p.Stdin().ReadFrom(io.LimitReader(f, 100<<20))
				p.Stdin().Close()
			}()
			for {
				ev, err := p.Next()
				if err != nil {
					break
				}
				fmt.Print(string(ev.Data))
			}
			el = time.Since(start)
			fmt.Println(run(ctx, a, sh("cut -d' ' -f14-15 /proc/1/stat; head -1 /proc/stat; grep softirq /proc/stat")))
			fmt.Println("stdin", el, float64(100<<20)/1e6/el.Seconds(), "MB/s")
			fmt.Println(run(ctx, a, sh("echo kept > /root/file; head -c 5000000 /dev/urandom > /root/big; md5sum /root/big > /root/sum; (sleep 100 &) ; sleep 100 & ")))
		} else {
			fmt.Println(run(ctx, a, sh("cat /root/file; md5sum -c /root/sum; md5sum /root/big; cat /root/sum")))
		}
		start := time.Now()
		d, err := a.Shutdown(ctx, 2*time.Second)
		fmt.Println("shutdown", d, err, time.Since(start))
		q.Wait()
		fmt.Println("down", time.Since(start))
	}
}
