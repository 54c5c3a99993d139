// Small words on making elements. All text goes in as text: what the page shows, others have written.

/** el makes an element with some properties and children, which are elements or text. */
export function el(name, properties, ...children) {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
}

/** row makes a row of a table of cells, which are elements td already, or texts. */
export function row(...cells) {
  return el('tr', {}, ...cells.map(c => c instanceof HTMLTableCellElement ? c : el('td', {}, c)));
}

/** byId finds an element of the page. */
export const byId = id => document.getElementById(id);

/** count says how many of something there are. */
export function count(n, one, many = one + 's') {
  return `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
}

/** show shows an element, or hides it. */
export function show(e, shown) { e.hidden = !shown; }

/** when is a time for people. */
export function when(text) {
  return text ? el('time', { dateTime: text }, text.replace('T', ' ').replace('Z', ' UTC')) : '-';
}

/** nameOf calls a host by its node id, or by its lease where it has none. */
export const nameOf = host => host.node || host.lease;
