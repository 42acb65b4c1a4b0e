// A line through the latest values, as an SVG path in a box of 100 by 30. Pure.

export const SPARK_WIDTH = 100;
export const SPARK_HEIGHT = 30;

/** Nothing while nothing changes. From zero up: a line that only shows differences would make noise look like news. */
export function sparkPath(values: number[]): string {
  if (values.every((value) => value === values[0])) return '';
  const top = Math.max(...values, 1e-9);
  const points = values.map((value, i) => {
    const x = (i / (values.length - 1)) * SPARK_WIDTH;
    const y = SPARK_HEIGHT - (value / top) * (SPARK_HEIGHT - 2) - 1;
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  return `M${points.join('L')}`;
}
