// Keeps the page within what is seen while a phone's keyboard is up. Browsers that know `interactive-widget` shrink the page themselves;
// others (Safari) lay the keyboard over it, and only the visual viewport tells.

export function followKeyboard(): void {
  const seen = window.visualViewport;
  if (!seen) return;
  const fit = () => {
    const covered = innerHeight - seen.height * seen.scale;
    const style = document.documentElement.style;
    if (seen.scale === 1 && covered > 60) {
      style.setProperty('--seen', `${seen.height}px`);
      scrollTo(0, 0);
    } else {
      style.removeProperty('--seen');
    }
  };
  seen.addEventListener('resize', fit);
  seen.addEventListener('scroll', fit);
}
