package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"tulle/ip/kernel/notify"
)

// Of a nexthop object (linux/nexthop.h).
const (
	objectHeader = 8 // the size of struct nhmsg, in bytes
	objectMember = 8 // that of struct nexthop_grp

	objectID    = 1 // NHA_ID, and so on
	objectGroup = 2
	objectLink  = 5
)

// nexthopObject is what the kernel says of a nexthop object.
type nexthopObject struct {
	id, link uint32
	members  []uint32 // of a group
}

func parseObject(m message) (o nexthopObject, ok bool) {
	if len(m.data) < objectHeader {
		return o, false
	}
	for typ, value := range notify.Attributes(m.data[objectHeader:]) {
		switch {
		case typ == objectID && len(value) == 4:
			o.id = binary.NativeEndian.Uint32(value)
		case typ == objectLink && len(value) == 4:
			o.link = binary.NativeEndian.Uint32(value)
		case typ == objectGroup:
			for ; len(value) >= objectMember; value = value[objectMember:] {
				o.members = append(o.members, binary.NativeEndian.Uint32(value))
			}
		}
	}
	return o, true
}

// readObjects has the members of groups lead where routes by these do.
func (rd *reading) readObjects(s *socket) error {
	if len(rd.links.objects) == 0 {
		return nil
	}
	objects, err := dump(s, unix.RTM_GETNEXTHOP, make([]byte, objectHeader), parseObject)
	for _, o := range objects {
		for _, id := range o.members {
			rd.links.objects[id] = append(rd.links.objects[id], rd.links.objects[o.id]...)
		}
	}
	return err
}
