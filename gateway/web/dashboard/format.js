// Numbers and times as people read them.

const DASH = "–";
const DAY = 86_400;
const YEAR = 365.25 * DAY;
const grouped = new Intl.NumberFormat("en-US");

const none = (value) => !Number.isFinite(value);

/** A whole number: 1,234,567. */
export function count(value) {
  return Math.abs(value) >= 1e12 ? short(value) : none(value) ? DASH : grouped.format(value);
}

/** A large number in short: 1.2 M. */
export function short(value) {
  if (none(value)) return DASH;
  const whole = Math.round(value);
  if (Math.abs(whole) < 1e4) return grouped.format(whole);
  // As it is rounded: 999,999 is 1M, not 1000k.
  const rounded = Number(whole.toPrecision(3));
  if (Math.abs(rounded) >= 1e15) return power(rounded, 2);
  const [size, sign] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([one]) => Math.abs(rounded) >= one);
  return `${digits(rounded / size, 3)}${sign}`;
}

function digits(value, number) {
  return String(Number(value.toPrecision(number)));
}

/** 4e-8, 1.2e20: for what no unit is made for. */
function power(value, number) {
  return value.toExponential(number - 1).replace(/\.?0*e\+?/, "e");
}

/** USD: small ones with as many digits as say something; in nine signs at most. */
export function usd(value) {
  if (none(value)) return DASH;
  if (value < 0) return `-${usd(-value)}`;
  if (value === 0) return "$0";
  if (value >= 999_999.5) return `$${short(value)}`;
  if (value >= 999.995) return `$${grouped.format(Math.round(value))}`;
  if (value >= 0.1) return `$${value.toFixed(2)}`;
  if (value < 1e-5) return `$${power(value, 2)}`;
  return `$${value.toFixed(1 - Math.floor(Math.log10(value)))}`;
}

/** Seconds as µs, ms, s, min, h, days or years. */
export function seconds(value) {
  if (none(value)) return DASH;
  if (value < 0) return `-${seconds(-value)}`;
  if (value < 0.0001) return value === 0 ? "0 ms" : value < 1e-7 ? "<0.1 µs" : `${digits(value * 1e6, 2)} µs`;
  if (value < 0.9995) return `${value < 0.01 ? digits(value * 1000, 2) : Math.round(value * 1000)} ms`;
  if (value < 99.5) return `${value.toFixed(value < 9.995 ? 2 : 1)} s`;
  if (value < 5400) return `${Math.floor(Math.round(value) / 60)} min ${Math.round(value) % 60} s`;
  if (value < 2 * DAY) return `${digits(value / 3600, 3)} h`;
  return value < 1000 * DAY ? `${digits(value / DAY, 3)} days` : `${value < 1e4 * YEAR ? digits(value / YEAR, 3) : short(value / YEAR)} years`;
}

/** The same in one number: 6.7 min. */
export function brief(value) {
  const size = Math.abs(value);
  return size >= 99.5 && size < 5400 ? `${digits(value / 60, 3)} min` : seconds(value);
}

/** Tokens a second. */
export function speed(value) {
  return none(value) ? DASH : Math.abs(value) >= 1e5 ? short(value) : Math.abs(value) >= 100 ? grouped.format(Math.round(value)) : digits(value, 3);
}

/** A share as percent. */
export function percent(part, whole) {
  if (!whole) return DASH;
  const share = (100 * part) / whole;
  return share === 0 ? "0 %" : share < 0.1 ? "<0.1 %" : `${digits(share, share < 10 ? 2 : 3)} %`;
}

const two = (number) => String(number).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** The time of day, with the date where that is not today. */
export function clock(text) {
  if (!text) return DASH;
  const at = new Date(text);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date().toDateString()) return time;
  return at.getFullYear() === new Date().getFullYear() ? `${day(at)} ${time.slice(0, 5)}` : day(at);
}

/** Day and month, with the year where that is another one. */
export function day(at) {
  return named(at.getDate(), at.getMonth(), at.getFullYear());
}

/** The same by UTC: intervals of days are whole days there. */
const utcDay = (at) => named(at.getUTCDate(), at.getUTCMonth(), at.getUTCFullYear());

const named = (date, month, year) => `${date} ${MONTHS[month]}${year === new Date().getFullYear() ? "" : ` ${year}`}`;

/** A whole time, to the millisecond. */
export function moment(text) {
  if (!text) return DASH;
  const at = new Date(text);
  return `${day(at)}, ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** A mark on an axis of time, whose intervals are so many seconds long. */
export function mark(at, apart) {
  if (apart >= 86400) return utcDay(at);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return at.getHours() + at.getMinutes() === 0 ? `${at.getDate()} ${MONTHS[at.getMonth()]}` : time;
}

/** From when to when an interval goes. */
export function interval(start, step) {
  const at = new Date(start);
  const end = new Date(at.getTime() + step * 1000);
  const time = (one) => `${two(one.getHours())}:${two(one.getMinutes())}`;
  if (step >= 86400) return `${step === 86400 ? utcDay(at) : `${utcDay(at)} to ${utcDay(new Date(end - 1))}`}, UTC`;
  return `${day(at)}, ${time(at)} to ${time(end)}`;
}

/** How many bytes a text has, in short. */
export function size(text) {
  const bytes = new Blob([text]).size;
  return bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${digits(bytes / 1024, 3)} KB` : `${digits(bytes / 1048576, 3)} MB`;
}
