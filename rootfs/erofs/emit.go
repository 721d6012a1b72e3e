package erofs

// written marks an inode that is in the image already and has other names.
const written = 0x80

// emitter writes what layout has placed, in the same order.
type emitter struct {
	*layout
	dirs, meta *window
	dirBase    uint32 // block where the directories begin
	dirAt      int64  // bytes of them so far
	count      uint32
	buf, block []byte
}

// inode writes an inode and what stands behind it, and the blocks of a directory.
func (e *emitter) inode(ino Ino, n *inode) error {
	if n.layout&written != 0 {
		return nil
	}
	e.count++
	kind := n.mode & ModeType
	b := append(e.buf[:0], zeros[:inodeExtendedSize]...)
	le.PutUint16(b, 1|uint16(n.layout)<<1)
	if n.xattrs != 0 {
		le.PutUint16(b[2:], uint16((e.xattrs.sets[n.xattrs].size-xattrHeaderSize)/4+1))
	}
	le.PutUint16(b[4:], n.mode)
	le.PutUint64(b[8:], uint64(n.size))
	switch {
	case kind == ModeDir:
		le.PutUint32(b[16:], e.dirBase+uint32(e.dirAt/BlockSize))
	case kind == ModeChar || kind == ModeBlock:
		le.PutUint32(b[16:], n.dev)
	case n.layout == layoutChunked:
		le.PutUint16(b[16:], uint16(n.bits))
	case kind == ModeRegular || kind == ModeSymlink:
		le.PutUint32(b[16:], n.start)
	}
	le.PutUint32(b[20:], e.count)
	le.PutUint32(b[24:], n.uid)
	le.PutUint32(b[28:], n.gid)
	le.PutUint64(b[32:], uint64(n.seconds))
	le.PutUint32(b[40:], n.nanos)
	le.PutUint32(b[44:], n.nlink)
	b, err := e.xattrs.body(b, n.xattrs, &e.spool)
	if err != nil {
		return err
	}
	if kind == ModeDir {
		b, err = e.directory(b, ino, n)
	} else if n.paylen > 0 {
		var p []byte
		p, err = e.spool.get(n.payload, int(n.paylen))
		b = append(b, p...)
	}
	if err != nil {
		return err
	}
	n.layout |= written
	e.buf = b
	return e.meta.write(int64(n.nid)<<slotBits, b)
}

// directory writes the blocks of a directory, and appends the last entries to b when
// they stand behind the inode.
func (e *emitter) directory(b []byte, dir Ino, n *inode) ([]byte, error) {
	e.list(dir)
	e.withDots(dir)
	for rest := e.children; len(rest) > 0; {
		size, k := 0, 0
		for k < len(rest) && size+direntSize+len(rest[k].name) <= BlockSize {
			size += direntSize + len(rest[k].name)
			k++
		}
		p := append(e.block[:0], zeros[:k*direntSize]...)
		for i, c := range rest[:k] {
			child := e.t.inode(c.ino)
			at := p[i*direntSize:]
			le.PutUint64(at, uint64(child.nid))
			le.PutUint16(at[8:], uint16(len(p)))
			at[10] = direntType(child.mode)
			p = append(p, c.name...)
		}
		e.block = p
		rest = rest[k:]
		if len(rest) == 0 && n.layout == layoutInline {
			return append(b, p...), nil
		}
		if err := e.dirs.write(e.dirAt, p); err != nil {
			return nil, err
		}
		e.dirAt += BlockSize
		if err := e.dirs.pad(e.dirAt); err != nil {
			return nil, err
		}
	}
	return b, nil
}
