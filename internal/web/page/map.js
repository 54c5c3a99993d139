// A map of fields on a canvas, which the mouse and the arrow keys walk over. What a field says is told in words below it.

const colour = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

export class FieldMap {
  /**
   * at(row, column) returns the words for a field, enter and leave go closer and back. A field is `least` to `most` pixels wide, all of them at most `wide`.
   */
  constructor(canvas, words, { at, enter = () => {}, leave = () => {}, least = 5, most = 26, wide = 720 }) {
    Object.assign(this, { canvas, words, at, enter, leave, least, most, wide, rows: 0, columns: 0, cursor: null });
    canvas.addEventListener('pointermove', e => this.point(this.fieldAt(e)));
    canvas.addEventListener('pointerleave', () => this.point(null));
    canvas.addEventListener('click', e => { const f = this.fieldAt(e); if (f) this.enter(...f); });
    canvas.addEventListener('keydown', e => this.key(e));
    canvas.addEventListener('focus', () => { if (!this.cursor && this.rows > 0) this.point([0, 0]); });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.paint());
    new ResizeObserver(() => { if (this.room() !== this.painted) this.paint(); }).observe(canvas.parentElement);
  }

  /** room is the width that there is, in pixels. */
  room() { return Math.min(this.canvas.parentElement.clientWidth, this.wide); }

  /** fits is how many fields fit beside each other. */
  fits(labels = 0) { return Math.max(1, Math.floor((this.room() - labels) / this.least)); }

  /**
   * set takes rows × columns fields: field(row, column) returns [colour, how much of 1, whether it is smaller], or null for one that is as most. Labels are
   * texts: { rows, columns }.
   */
  set(rows, columns, field, labels = null) {
    Object.assign(this, { rows, columns, field, labels });
    if (this.cursor && (this.cursor[0] >= rows || this.cursor[1] >= columns)) this.cursor = null;
    this.paint();
    this.tell();
  }

  paint() {
    const room = this.painted = this.room();
    if (!this.rows || room <= 0) return;
    const most = Math.min(this.most, Math.floor(room / this.columns));
    this.left = this.top = 0;
    this.size = Math.max(1, most);
    if (this.labels) {
      const longest = Math.min(18, Math.max(...Object.values(this.labels).flat().map(l => l.length))) * 7 + 8;
      const size = Math.min(this.most, Math.floor((room - longest) / this.columns));
      if (size >= 13) [this.left, this.top, this.size] = [longest, longest, size];
    }
    const width = this.left + this.columns * this.size, height = this.top + this.rows * this.size;
    const ratio = devicePixelRatio || 1;
    Object.assign(this.canvas, { width: Math.ceil(width * ratio), height: Math.ceil(height * ratio) });
    Object.assign(this.canvas.style, { width: width + 'px', height: height + 'px' });
    const pen = this.canvas.getContext('2d');
    pen.scale(ratio, ratio);
    const colours = {};
    const fill = (name, x, y, w, h = w) => {
      pen.fillStyle = colours[name] ??= colour(name);
      pen.fillRect(this.left + x, this.top + y, w, h);
    };
    const gap = this.size > 5 ? 1 : 0, across = this.columns * this.size, down = this.rows * this.size;
    fill('none', 0, 0, across, down);
    for (let r = 0; r < this.rows; r++) {
      for (let c = 0; c < this.columns; c++) {
        const said = this.field(r, c);
        if (!said) continue;
        const [name, share, small] = said;
        const inset = small ? Math.ceil(this.size / 5) : 0;
        pen.globalAlpha = share;
        fill(name, c * this.size + inset, r * this.size + inset, this.size - 2 * inset);
        pen.globalAlpha = 1;
      }
    }
    if (gap) {
      for (let r = 1; r <= this.rows; r++) fill('panel', 0, r * this.size - 1, across, 1);
      for (let c = 1; c <= this.columns; c++) fill('panel', c * this.size - 1, 0, 1, down);
    }
    if (this.left) this.paintLabels(pen);
    if (this.cursor) {
      pen.strokeStyle = colour('text');
      pen.lineWidth = 2;
      pen.strokeRect(this.left + this.cursor[1] * this.size - .5, this.top + this.cursor[0] * this.size - .5, this.size, this.size);
    }
  }

  paintLabels(pen) {
    pen.fillStyle = colour('quiet');
    pen.font = '12px system-ui, sans-serif';
    pen.textBaseline = 'middle';
    const short = l => l.length > 18 ? l.slice(0, 17) + '…' : l;
    const middle = i => i * this.size + this.size / 2;
    pen.textAlign = 'right';
    this.labels.rows.forEach((l, r) => pen.fillText(short(l), this.left - 6, this.top + middle(r), this.left - 6));
    pen.textAlign = 'left';
    this.labels.columns.forEach((l, c) => {
      pen.save();
      pen.translate(this.left + middle(c), this.top - 6);
      pen.rotate(-Math.PI / 2);
      pen.fillText(short(l), 0, 0, this.top - 6);
      pen.restore();
    });
  }

  fieldAt(e) {
    const box = this.canvas.getBoundingClientRect();
    const c = Math.floor((e.clientX - box.left - this.left) / this.size), r = Math.floor((e.clientY - box.top - this.top) / this.size);
    return r >= 0 && c >= 0 && r < this.rows && c < this.columns ? [r, c] : null;
  }

  point(field) {
    if (String(field) === String(this.cursor)) return;
    this.cursor = field;
    this.paint();
    this.tell();
  }

  tell() {
    const said = this.cursor ? this.at(...this.cursor) : '';
    if (this.words.textContent !== said) this.words.textContent = said;
  }

  key(e) {
    const [r, c] = this.cursor ?? [0, 0];
    const moves = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0], End: [r, this.columns - 1] };
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (moves[e.key]) {
      const [row, column] = moves[e.key];
      if (row >= 0 && column >= 0 && row < this.rows && column < this.columns) this.point([row, column]);
    } else if (e.key === 'Enter') {
      this.enter(r, c);
    } else if (e.key === 'Escape') {
      this.leave();
    } else {
      return;
    }
    e.preventDefault();
  }
}
