// The addresses of each family as a map.
import { byId, el, count, show, nameOf } from './text.js';
import { FieldMap } from './map.js';

/** columnsOf keeps maps wider than high. */
const columnsOf = pool => pool.cells.length > 256 ? 64 : 32;
const maps = new Map(); // by family: { map, box, title, said, pool, used, owners }

export function showPools(pools, hosts) {
  show(byId('addresses-none'), pools.length === 0);
  const owners = new Map();
  for (const h of hosts) for (const s of h.subnets) owners.set(s, h);
  for (const [family, m] of maps) {
    if (!pools.some(p => p.family === family)) {
      m.box.remove();
      maps.delete(family);
    }
  }
  for (const pool of pools) {
    if (!maps.has(pool.family)) maps.set(pool.family, make(pool.family));
    fill(maps.get(pool.family), pool, owners);
  }
}

function make(family) {
  const m = { title: el('h3'), said: el('p', { className: 'quiet', id: `pool-${family}` }) };
  const canvas = el('canvas', { tabIndex: 0, id: `pool-map-${family}` });
  const at = el('p', { className: 'at' });
  at.setAttribute('aria-live', 'polite');
  for (const [name, value] of Object.entries({ role: 'application', 'aria-roledescription': 'map of addresses', 'aria-label': `Addresses of ${family}`, 'aria-describedby': m.said.id })) canvas.setAttribute(name, value);
  m.box = el('div', { className: 'map' }, m.title, m.said, canvas, at);
  byId('pools').append(m.box);
  m.map = new FieldMap(canvas, at, { at: (r, c) => words(m, r * columnsOf(m.pool) + c), most: 18, wide: 580 });
  return m;
}

function fill(m, pool, owners) {
  Object.assign(m, { pool, owners, used: new Map(pool.used.map(([i, ...counts]) => [i, counts])) });
  m.title.textContent = `${pool.network} in subnets of /${pool.subnetLen}`;
  const parts = [`${pool.free} of ${pool.subnets} free`, `${pool.leased} leased`];
  if (pool.reserved) parts.push(`${pool.reserved} reserved`);
  if (pool.refused) parts.push(`${pool.refused} refused`);
  if (pool.outside) parts.push(`${count(pool.outside, 'lease')} outside of the network`);
  m.said.textContent = parts.join(', ') + (pool.each === '1' ? '.' : `. A field is ${pool.each} subnets.`);
  const columns = columnsOf(pool);
  m.map.set(Math.ceil(pool.cells.length / columns), Math.min(columns, pool.cells.length), (r, c) => field(m, r * columns + c));
}

function field(m, i) {
  const counts = m.used.get(i);
  if (!counts) return i < m.pool.first || i > m.pool.last ? ['closed', 1, false] : null;
  const [leased, reserved, refused] = counts;
  const share = Math.min(1, .4 + .6 * (leased + reserved + refused) / Number(m.pool.each));
  return [refused ? 'unreachable' : reserved > leased ? 'reserved' : 'leased', share, false];
}

function words(m, i) {
  const counts = m.used.get(i), cell = m.pool.cells[i];
  if (!counts) return `${cell}: ${i < m.pool.first || i > m.pool.last ? 'not to be leased' : 'free'}`;
  const [leased, reserved, refused] = counts;
  const said = [[leased, 'leased'], [reserved, 'reserved'], [refused, 'refused']].filter(([n]) => n).map(([n, what]) => m.pool.each === '1' && n === 1 ? what : `${n} ${what}`).join(', ');
  const owner = m.owners.get(cell);
  return `${cell}: ${said}${owner ? `, ${nameOf(owner)}` : ''}${m.pool.each === '1' ? '' : ` of ${m.pool.each}`}`;
}
