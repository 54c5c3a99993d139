package probe

import (
	"container/heap"
	"time"
)

// queue holds lines by when they are due. A line is in one queue at most.
type queue []*line

var _ heap.Interface = (*queue)(nil)

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for package heap.
func (q *queue) Push(x any) {
	l := x.(*line)
	l.index = len(*q)
	*q = append(*q, l)
}

// Pop is for package heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	l := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return l
}

// put has the line be due at a time in this queue, and in no other.
func (q *queue) put(l *line, due time.Time) {
	l.leave()
	l.due, l.queue = due, q
	heap.Push(q, l)
}

// leave takes the line out of its queue, if it is in one.
func (l *line) leave() {
	if l.queue != nil {
		heap.Remove(l.queue, l.index)
		l.queue = nil
	}
}

// due reports whether the first one is.
func (q queue) due(now time.Time) bool { return len(q) > 0 && !q[0].due.After(now) }
