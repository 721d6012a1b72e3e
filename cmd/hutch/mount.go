package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

// mountFlags are the flags that mount something in a guest.
type mountFlags struct {
	volumes, tmpfs, disks []string
}

func (f *mountFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVarP(&f.volumes, "volume", "v", nil, "mount a directory or file of the host, or a named volume, which is made if needed:\nSOURCE:PATH[:OPTIONS], a source with a '/' being a path; options ro, noexec, nosuid,\nnodev, mirror (apply owners and modes on the host) and quota=SIZE")
	fl.StringArrayVar(&f.tmpfs, "tmpfs", nil, "mount memory: PATH[:OPTIONS], options being a SIZE, ro, noexec, nosuid, nodev")
	fl.StringArrayVar(&f.disks, "disk", nil, "mount a disk image: FILE:PATH[:OPTIONS], options being the file system's type,\nformat=raw|qcow2|vmdk (default: by the extension), ro, noexec, nosuid, nodev")
}

// mounts are what the flags say; named volumes that are missing are made.
func (f *mountFlags) mounts(ctx context.Context, home string) (map[string]sandbox.Mount, error) {
	all := map[string]sandbox.Mount{}
	for _, kind := range []struct {
		flag  string
		list  []string
		parse func(string) (string, sandbox.Mount, error)
	}{{"--volume", f.volumes, parseVolume}, {"--tmpfs", f.tmpfs, parseTmpfs}, {"--disk", f.disks, parseDisk}} {
		for _, s := range kind.list {
			target, m, err := kind.parse(s)
			if err == nil && all[target].Kind != "" {
				err = fmt.Errorf("something else is mounted on %s", target)
			}
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", kind.flag, s, err)
			}
			all[target] = m
		}
	}
	for _, m := range all {
		if m.Kind != sandbox.KindNamed {
			continue
		}
		_, err := sandbox.CreateVolume(ctx, m.Source, sandbox.VolumeOptions{}, sandbox.WithHome(home))
		if err != nil && !errors.Is(err, sandbox.ErrVolumeExists) {
			return nil, err
		}
	}
	return all, nil
}

func parseVolume(s string) (string, sandbox.Mount, error) {
	source, rest, ok := strings.Cut(s, ":")
	target, options, _ := strings.Cut(rest, ":")
	if !ok || source == "" || target == "" {
		return "", sandbox.Mount{}, errors.New("want SOURCE:PATH or SOURCE:PATH:OPTIONS")
	}
	m := sandbox.MountNamed(source)
	if strings.Contains(source, "/") || strings.HasPrefix(source, ".") {
		m = sandbox.MountBind(source)
	}
	err := parseMountOptions(&m, options, func(name, value string) error {
		switch {
		case name == "mirror" && value == "":
			m.Mirror = true
		case name == "quota" && m.Kind == sandbox.KindNamed:
			return errors.New("a volume has the quota that it was made with")
		case name == "quota":
			var n byteSize
			if err := n.Set(value); err != nil {
				return err
			}
			m.Quota = uint64(n)
		default:
			return errUnknownOption
		}
		return nil
	})
	return target, m, err
}

func parseTmpfs(s string) (string, sandbox.Mount, error) {
	target, options, _ := strings.Cut(s, ":")
	if target == "" {
		return "", sandbox.Mount{}, errors.New("want PATH or PATH:OPTIONS")
	}
	m := sandbox.MountTmpfs(0)
	err := parseMountOptions(&m, options, func(name, value string) error {
		if name == "size" {
			name, value = value, ""
		}
		var n byteSize
		if value != "" || n.Set(name) != nil {
			return errUnknownOption
		}
		m.Size = uint64(n)
		return nil
	})
	return target, m, err
}

func parseDisk(s string) (string, sandbox.Mount, error) {
	source, rest, ok := strings.Cut(s, ":")
	target, options, _ := strings.Cut(rest, ":")
	if !ok || source == "" || target == "" {
		return "", sandbox.Mount{}, errors.New("want FILE:PATH or FILE:PATH:OPTIONS")
	}
	m := sandbox.MountDisk(source, "", "")
	err := parseMountOptions(&m, options, func(name, value string) error {
		switch {
		case name == "format":
			m.Format = value
		case value == "" && m.FSType == "":
			m.FSType = name
		default:
			return errUnknownOption
		}
		return nil
	})
	return target, m, err
}

var errUnknownOption = errors.New("unknown option")

// parseMountOptions takes the options that all kinds have, and gives others, as
// name and value, to more.
func parseMountOptions(m *sandbox.Mount, options string, more func(name, value string) error) error {
	if options == "" {
		return nil
	}
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "rw":
		case "ro":
			m.ReadOnly = true
		case "noexec":
			m.NoExec = true
		case "nosuid":
			m.NoSuid = true
		case "nodev":
			m.NoDev = true
		default:
			name, value, _ := strings.Cut(o, "=")
			if err := more(name, value); err != nil {
				return fmt.Errorf("%q: %w", o, err)
			}
		}
	}
	return nil
}
