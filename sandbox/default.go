package sandbox

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
)

// DefaultCommand is what the sandbox runs when no command is named: the words
// of its entrypoint followed by those of its command. As with Docker,
//
//   - both come from the image unless [WithEntrypoint] and [WithCmd] replace them;
//   - a replaced entrypoint drops the image's command, which was meant for the
//     image's entrypoint;
//   - the shell form, "CMD echo hello" in a Dockerfile, is "/bin/sh -c 'echo
//     hello'" in the image already, so nothing is parsed here;
//   - if args are given they take the place of the command, as in "docker run
//     IMAGE args".
//
// If there is neither, it is the sandbox's shell.
func (s *Sandbox) DefaultCommand(args ...string) []string {
	argv := defaultCommand(s.root.image.Entrypoint, s.root.image.Cmd, s.cfg.Entrypoint, s.cfg.Cmd, args)
	if len(argv) == 0 {
		return []string{s.cfg.Shell}
	}
	return argv
}

// defaultCommand applies the rules of DefaultCommand. Of the options nil is not given.
func defaultCommand(imageEntrypoint, imageCmd []string, entrypoint, cmd *[]string, args []string) []string {
	if entrypoint != nil {
		imageEntrypoint, imageCmd = *entrypoint, nil
	}
	if cmd != nil {
		imageCmd = *cmd
	}
	if len(args) > 0 {
		imageCmd = args
	}
	return slices.Concat(imageEntrypoint, imageCmd)
}

// ExecDefault runs the default command, see DefaultCommand, as Exec does.
func (s *Sandbox) ExecDefault(ctx context.Context, opts ...ExecOption) (*Output, error) {
	argv := s.DefaultCommand()
	return s.Exec(ctx, argv[0], argv[1:], opts...)
}

// AttachDefault runs the default command, see DefaultCommand, as Attach does.
func (s *Sandbox) AttachDefault(ctx context.Context, opts ...ExecOption) (*ProcessState, error) {
	argv := s.DefaultCommand()
	return s.Attach(ctx, argv[0], argv[1:], opts...)
}

// adopt takes over what the sandbox's root is and says about the sandbox.
func (s *Sandbox) adopt(r *root) {
	s.info.Root = r.pin
	labels := maps.Clone(r.image.Labels)
	for k, v := range labels {
		if !plainText(k+v) || reservedLabel(k) {
			delete(labels, k) // those that no option could set either
		}
	}
	s.info.Labels = merged(labels, s.cfg.Labels)
}

// imageEnv makes a map of an image's environment, without what no option could set.
func imageEnv(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		if one := map[string]string{k: v}; checkEnv("", one) == nil {
			env[k] = v
		}
	}
	return env
}

// imageWorkdir makes an image's working directory absolute.
func imageWorkdir(dir string) string {
	if dir == "" || strings.IndexByte(dir, 0) >= 0 {
		return ""
	}
	return path.Join("/", dir)
}
