package kernel

// Feature is something that programs in a guest may count on.
type Feature struct {
	// Name says what it is, in lower case.
	Name string

	// Config lists the options behind it, each "CONFIG_X=y". All of them are
	// lines of [Config] and of the guest's /proc/config.gz.
	Config []string

	// Filesystems are types that the guest's /proc/filesystems lists.
	Filesystems []string

	// Paths exist in every guest with /proc, /sys, /dev and /sys/fs/cgroup
	// mounted, whatever devices the machine has.
	Paths []string
}

// Features lists what the kernel promises. The slice and all in it are the caller's.
func Features() []Feature {
	return []Feature{
		// Machine
		{Name: "up to 64 processors", Config: append(options("SMP", "X86_MPPARSE", "X86_X2APIC"), "CONFIG_NR_CPUS=64")},
		{Name: "kvm guest", Config: options("HYPERVISOR_GUEST", "KVM_GUEST", "PARAVIRT", "PARAVIRT_SPINLOCKS", "PARAVIRT_CLOCK")},
		{Name: "host clock", Config: options("PTP_1588_CLOCK_KVM"), Paths: []string{"/sys/class/ptp"}},
		{Name: "start by PVH", Config: options("PVH")},
		{Name: "32-bit programs", Config: options("IA32_EMULATION", "MODIFY_LDT_SYSCALL", "COMPAT_32BIT_TIME")},

		// Devices
		{Name: "virtio over mmio", Config: options("VIRTIO_MMIO", "VIRTIO_MMIO_CMDLINE_DEVICES"), Paths: []string{"/sys/bus/virtio/drivers"}},
		{Name: "virtio block", Config: options("VIRTIO_BLK"), Paths: []string{"/sys/bus/virtio/drivers/virtio_blk"}},
		{Name: "virtio network", Config: options("VIRTIO_NET"), Paths: []string{"/sys/bus/virtio/drivers/virtio_net"}},
		{Name: "virtio vsock", Config: options("VSOCKETS", "VIRTIO_VSOCKETS"), Paths: []string{"/dev/vsock", "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"}},
		{Name: "virtio console", Config: options("VIRTIO_CONSOLE"), Paths: []string{"/sys/bus/virtio/drivers/virtio_console"}},
		{Name: "virtio entropy", Config: options("HW_RANDOM_VIRTIO"), Paths: []string{"/sys/bus/virtio/drivers/virtio_rng"}},
		{Name: "virtio balloon with free page reporting", Config: options("VIRTIO_BALLOON", "PAGE_REPORTING", "BALLOON_COMPACTION"), Paths: []string{"/sys/bus/virtio/drivers/virtio_balloon"}},
		{Name: "virtio memory", Config: options("VIRTIO_MEM", "MEMORY_HOTPLUG", "MEMORY_HOTREMOVE"), Paths: []string{"/sys/bus/virtio/drivers/virtio_mem", "/sys/devices/system/memory"}},
		{Name: "virtio file system", Config: options("VIRTIO_FS"), Filesystems: []string{"virtiofs"}},
		{Name: "loop devices", Config: options("BLK_DEV_LOOP"), Paths: []string{"/dev/loop-control"}},
		{Name: "partitions", Config: options("MSDOS_PARTITION", "EFI_PARTITION")},

		// File systems
		{Name: "erofs with lz4 and lzma", Config: options("EROFS_FS", "EROFS_FS_XATTR", "EROFS_FS_POSIX_ACL", "EROFS_FS_SECURITY", "EROFS_FS_ZIP", "EROFS_FS_ZIP_LZMA"), Filesystems: []string{"erofs"}},
		{Name: "squashfs with zstd", Config: options("SQUASHFS", "SQUASHFS_XATTR", "SQUASHFS_ZSTD", "SQUASHFS_LZ4", "SQUASHFS_XZ", "SQUASHFS_ZLIB"), Filesystems: []string{"squashfs"}},
		{Name: "ext4", Config: options("EXT4_FS", "EXT4_FS_POSIX_ACL", "EXT4_FS_SECURITY", "EXT4_USE_FOR_EXT2"), Filesystems: []string{"ext4", "ext2"}},
		{Name: "overlayfs", Config: options("OVERLAY_FS"), Filesystems: []string{"overlay"}},
		{Name: "tmpfs with xattrs and ACLs", Config: options("TMPFS", "TMPFS_XATTR", "TMPFS_POSIX_ACL"), Filesystems: []string{"tmpfs"}},
		{Name: "fuse", Config: options("FUSE_FS"), Filesystems: []string{"fuse", "fuseblk"}, Paths: []string{"/dev/fuse"}},
		{Name: "vfat", Config: options("VFAT_FS"), Filesystems: []string{"vfat"}},
		{Name: "hugetlbfs", Config: options("HUGETLBFS"), Filesystems: []string{"hugetlbfs"}, Paths: []string{"/sys/kernel/mm/hugepages"}},
		{Name: "file notification", Config: options("INOTIFY_USER", "FANOTIFY", "FANOTIFY_ACCESS_PERMISSIONS", "DNOTIFY"), Paths: []string{"/proc/sys/fs/inotify", "/proc/sys/fs/fanotify"}},

		// Isolation inside the guest
		{Name: "namespaces", Config: options("USER_NS", "PID_NS", "NET_NS", "UTS_NS", "IPC_NS", "TIME_NS"), Paths: []string{"/proc/self/ns/user", "/proc/self/ns/pid", "/proc/self/ns/net", "/proc/self/ns/mnt", "/proc/self/ns/uts", "/proc/self/ns/ipc", "/proc/self/ns/cgroup", "/proc/self/ns/time"}},
		{Name: "control groups", Config: options("CGROUPS", "MEMCG", "BLK_CGROUP", "BLK_DEV_THROTTLING", "BLK_CGROUP_IOCOST", "CGROUP_SCHED", "CFS_BANDWIDTH", "CGROUP_PIDS", "CGROUP_FREEZER", "CPUSETS", "CGROUP_DEVICE", "CGROUP_BPF", "CGROUP_HUGETLB", "CGROUP_PERF"), Filesystems: []string{"cgroup2", "cgroup"}},
		{Name: "pressure stall information", Config: options("PSI"), Paths: []string{"/proc/pressure/memory"}},
		{Name: "seccomp filters", Config: options("SECCOMP", "SECCOMP_FILTER"), Paths: []string{"/proc/sys/kernel/seccomp"}},
		{Name: "landlock", Config: options("SECURITY_LANDLOCK")},
		{Name: "keyrings", Config: options("KEYS"), Paths: []string{"/proc/keys"}},

		// System calls
		{Name: "io_uring", Config: options("IO_URING")},
		{Name: "asynchronous i/o", Config: options("AIO"), Paths: []string{"/proc/sys/fs/aio-max-nr"}},
		{Name: "event descriptors", Config: options("EPOLL", "EVENTFD", "SIGNALFD", "TIMERFD", "FUTEX", "POSIX_TIMERS", "HIGH_RES_TIMERS"), Paths: []string{"/proc/sys/fs/epoll"}},
		{Name: "userfaultfd", Config: options("USERFAULTFD"), Paths: []string{"/dev/userfaultfd"}},
		{Name: "bpf with compiler", Config: options("BPF_SYSCALL", "BPF_JIT", "BPF_JIT_ALWAYS_ON"), Filesystems: []string{"bpf"}, Paths: []string{"/proc/sys/net/core/bpf_jit_enable"}},
		{Name: "system v ipc", Config: options("SYSVIPC"), Paths: []string{"/proc/sysvipc/shm"}},
		{Name: "posix message queues", Config: options("POSIX_MQUEUE"), Filesystems: []string{"mqueue"}},
		{Name: "core dumps", Config: options("COREDUMP", "ELF_CORE"), Paths: []string{"/proc/sys/kernel/core_pattern"}},
		{Name: "checkpoint and restore", Config: options("CHECKPOINT_RESTORE", "KCMP", "MEM_SOFT_DIRTY", "PROC_PAGE_MONITOR"), Paths: []string{"/proc/self/map_files", "/proc/self/pagemap"}},
		{Name: "perf events", Config: options("PERF_EVENTS"), Paths: []string{"/proc/sys/kernel/perf_event_paranoid"}},
		{Name: "other binary formats", Config: options("BINFMT_MISC", "BINFMT_SCRIPT"), Filesystems: []string{"binfmt_misc"}},

		// Memory
		{Name: "transparent huge pages on request", Config: options("TRANSPARENT_HUGEPAGE", "TRANSPARENT_HUGEPAGE_MADVISE"), Paths: []string{"/sys/kernel/mm/transparent_hugepage/enabled"}},
		{Name: "swap", Config: options("SWAP"), Paths: []string{"/proc/swaps"}},
		{Name: "compressed memory disks", Config: options("ZRAM", "CRYPTO_LZ4", "CRYPTO_ZSTD"), Paths: []string{"/sys/class/zram-control"}},

		// Network
		{Name: "ip", Config: options("INET", "IPV6", "IP_MULTICAST", "IP_ADVANCED_ROUTER", "SYN_COOKIES", "TCP_CONG_BBR"), Paths: []string{"/proc/net/tcp", "/proc/net/tcp6"}},
		{Name: "unix and packet sockets", Config: options("UNIX", "PACKET"), Paths: []string{"/proc/net/unix", "/proc/net/packet"}},
		{Name: "socket diagnosis", Config: options("INET_DIAG", "INET_TCP_DIAG", "INET_UDP_DIAG", "UNIX_DIAG", "PACKET_DIAG", "NETLINK_DIAG", "VSOCKETS_DIAG")},
		{Name: "network devices in software", Config: options("TUN", "VETH", "BRIDGE", "DUMMY", "IFB", "MACVLAN", "IPVLAN", "VLAN_8021Q", "VXLAN", "WIREGUARD"), Paths: []string{"/dev/net/tun"}},
		{Name: "traffic control", Config: options("NET_SCHED", "NET_SCH_FQ", "NET_SCH_FQ_CODEL", "NET_SCH_HTB", "NET_SCH_INGRESS", "NET_SCH_NETEM")},
		{Name: "nftables", Config: options("NF_TABLES", "NF_TABLES_INET", "NFT_NAT", "NFT_MASQ", "NFT_CT", "NFT_COMPAT", "NF_CONNTRACK")},
		{Name: "iptables", Config: options("IP_NF_FILTER", "IP_NF_NAT", "IP_NF_MANGLE", "IP_NF_RAW", "IP_NF_TARGET_MASQUERADE", "IP6_NF_FILTER", "IP6_NF_NAT", "IP6_NF_TARGET_MASQUERADE", "NETFILTER_XT_MATCH_ADDRTYPE", "NETFILTER_XT_MATCH_CONNTRACK", "NETFILTER_XT_MATCH_COMMENT", "BRIDGE_NETFILTER", "IP_SET"), Paths: []string{"/proc/net/ip_tables_names"}},

		// Hardening
		{Name: "hardening", Config: options("STACKPROTECTOR_STRONG", "STRICT_KERNEL_RWX", "HARDENED_USERCOPY", "FORTIFY_SOURCE", "VMAP_STACK", "SLAB_FREELIST_HARDENED", "BPF_UNPRIV_DEFAULT_OFF", "RANDOM_TRUST_CPU")},
		{Name: "configuration in the guest", Config: options("IKCONFIG", "IKCONFIG_PROC"), Paths: []string{"/proc/config.gz"}},
	}
}

// options prefixes and completes the names of options that are simply on.
func options(names ...string) []string {
	for i, n := range names {
		names[i] = "CONFIG_" + n + "=y"
	}
	return names
}
