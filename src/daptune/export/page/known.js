// How usual an image is among known ones, as `tail_p_values` of daptune/metrics.py.

// P(T < t) of Student's t with whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4).
function student(freedom, t) {
  const angle = Math.atan(t / Math.sqrt(freedom)), odd = freedom % 2, square = Math.cos(angle) ** 2;
  let term = odd ? Math.cos(angle) : 1, total = 0;
  for (let power = 1 + odd; power < freedom; power += 2) {
    total += term;
    term *= (square * power) / (power + 1);
  }
  const within = Math.sin(angle) * total;
  return Math.max(0, odd ? 0.5 + (angle + within) / Math.PI : 0.5 + within / 2);
}

// Share of known images, `known` ascending similarities, that are as strange as one of this similarity.
export function share(known, similarity) {
  const count = known.length, rank = (1 + known.filter((value) => value <= similarity).length) / (1 + count);
  if (similarity >= known[0] || count < 2) return rank;
  const mean = known.reduce((a, b) => a + b, 0) / count;
  const deviation = Math.sqrt(known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1));
  if (!(deviation > 0)) return rank;
  return Math.min(rank, student(count - 1, (similarity - mean) / (deviation * Math.sqrt(1 + 1 / count))));
}
