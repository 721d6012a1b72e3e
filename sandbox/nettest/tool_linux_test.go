package nettest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"
)

// tool is a program in the guest. It says what happened.
func tool(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	number := func(i int) int {
		n, _ := strconv.Atoi(args[i])
		return n
	}
	switch args[0] {
	case "dial":
		return toolDial(args[1:])
	case "upper": // ADDRESS TEXT: half close
		c, err := net.Dial("tcp", args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		io.WriteString(c, args[2])
		c.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(c)
		fmt.Printf("%s\n", b)
		return err
	case "read": // ADDRESS: until the end or an error
		c, err := net.Dial("tcp", args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		n, err := io.Copy(io.Discard, c)
		fmt.Println(n, "bytes")
		return err
	case "many": // ADDRESS N: connections at once, each echoes
		return toolMany(args[1], number(2))
	case "scan": // HOST N: ports from 1000 on
		return toolScan(args[1], number(2))
	case "udp": // ADDRESS SIZE
		return toolUDP(args[1], number(2))
	case "tls": // ADDRESS NAME
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", args[1], &tls.Config{ServerName: args[2], InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		fmt.Printf("%s\n", b)
		return err
	case "dns": // SERVER NAME TYPE [tcp]
		return toolDNS(args[1:])
	case "listen": // PORT: an echo server on TCP and UDP, of both families
		return toolListen(args[1])
	case "send", "receive": // ADDRESS MIB
		return toolStream(args[0], args[1], number(2))
	}
	return errUsage
}

// toolDial tries addresses, and says for each how that went and how fast.
func toolDial(addresses []string) error {
	for _, a := range addresses {
		begin := time.Now()
		c, err := net.DialTimeout("tcp", a, 20*time.Second)
		what := "open"
		if err == nil {
			c.Close()
		} else {
			what = err.Error()
			if errors.Is(err, syscall.ECONNREFUSED) {
				what = "refused"
			}
		}
		speed := "fast"
		if time.Since(begin) > 3*time.Second {
			speed = "slow"
		}
		fmt.Printf("%s %s %s\n", a, what, speed)
	}
	return nil
}

func toolMany(address string, n int) error {
	var work sync.WaitGroup
	var failed, open atomic.Int64
	var first atomic.Value
	all := make(chan struct{})
	for i := range n {
		work.Go(func() {
			fail := func(err error) {
				failed.Add(1)
				first.CompareAndSwap(nil, err.Error())
			}
			c, err := net.DialTimeout("tcp", address, time.Minute)
			if open.Add(1) == int64(n) {
				close(all)
			}
			if err != nil {
				fail(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			<-all // every one is open, or has failed
			msg := fmt.Sprintf("message %d", i)
			io.WriteString(c, msg)
			b := make([]byte, len(msg))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != msg {
				fail(fmt.Errorf("echo %q: %v", b, err))
			}
		})
	}
	work.Wait()
	fmt.Println(n, "connections,", failed.Load(), "failed", first.Load())
	return nil
}

func toolScan(host string, n int) error {
	var work sync.WaitGroup
	var refused, open atomic.Int64
	ports := make(chan int)
	for range 50 {
		work.Go(func() {
			for p := range ports {
				c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(p)), time.Minute)
				if err == nil {
					open.Add(1)
					c.Close()
				} else if errors.Is(err, syscall.ECONNREFUSED) {
					refused.Add(1)
				}
			}
		})
	}
	for p := 1000; p < 1000+n; p++ {
		ports <- p
	}
	close(ports)
	work.Wait()
	fmt.Println(refused.Load(), "refused,", open.Load(), "open")
	return nil
}

func toolUDP(address string, size int) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	msg := []byte(strings.Repeat("u", size))
	buf := make([]byte, 65536)
	for range 5 { // UDP may lose
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err = c.Write(msg); err != nil {
			return err
		}
		var n int
		if n, err = c.Read(buf); err == nil {
			fmt.Println("echo of", n, string(buf[:n]) == string(msg))
			return nil
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
	return err
}

func toolDNS(args []string) error {
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(args[1]), mdns.StringToType[args[2]])
	c := &mdns.Client{Timeout: 15 * time.Second}
	if len(args) > 3 {
		c.Net = args[3]
	}
	begin := time.Now()
	r, _, err := c.Exchange(m, args[0])
	if err != nil {
		return err
	}
	s := mdns.RcodeToString[r.Rcode]
	if r.Truncated {
		s += " truncated"
	}
	for _, rr := range r.Answer {
		s += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	fmt.Println(s, len(r.Answer), "records")
	if time.Since(begin) > 8*time.Second {
		fmt.Println("slow")
	}
	return nil
}

func toolListen(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// toolStream sends or receives so many MiB and says how fast that was.
func toolStream(how, address string, mib int) error {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	var n int64
	if how == "send" {
		buf := slices.Repeat([]byte("0123456789abcdef"), 8<<10)
		for n < int64(mib)<<20 {
			k, err := c.Write(buf)
			n += int64(k)
			if err != nil {
				return err
			}
		}
		c.(*net.TCPConn).CloseWrite()
		_, err = c.Read(make([]byte, 1)) // the far end has all of it
		if err == io.EOF {
			err = nil
		}
	} else {
		n, err = io.Copy(io.Discard, io.LimitReader(c, int64(mib)<<20))
	}
	fmt.Printf("%d bytes %.1f Mbit/s\n", n, float64(n)*8/1e6/time.Since(begin).Seconds())
	return err
}
