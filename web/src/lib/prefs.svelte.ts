// What this browser remembers about its user: appearance, language, shortcuts. And the texts in that language.
import { en, type Texts } from './i18n/en';
import { es } from './i18n/es';
import { local } from './storage';

export type Theme = 'system' | 'light' | 'dark';
export type Locale = 'en' | 'es';

export const TEXTS: Record<Locale, Texts> = { en, es };

interface Saved {
  theme?: Theme;
  locale?: Locale;
  shortcuts?: boolean;
}

function browserLocale(): Locale {
  return navigator.language.toLowerCase().startsWith('es') ? 'es' : 'en';
}

class Prefs {
  theme = $state<Theme>('system');
  locale = $state<Locale>('en');
  shortcuts = $state(true);
  t = $derived(TEXTS[this.locale]);

  constructor() {
    const saved = local.read<Saved>('prefs') ?? {};
    this.theme = saved.theme ?? 'system';
    this.locale = saved.locale && saved.locale in TEXTS ? saved.locale : browserLocale();
    this.shortcuts = saved.shortcuts ?? true;
  }

  set(change: Saved): void {
    Object.assign(this, change);
    local.write('prefs', { theme: this.theme, locale: this.locale, shortcuts: this.shortcuts });
    this.apply();
  }

  apply(): void {
    const root = document.documentElement;
    root.lang = this.locale;
    if (this.theme === 'system') delete root.dataset.theme;
    else root.dataset.theme = this.theme;
  }
}

export const prefs = new Prefs();
