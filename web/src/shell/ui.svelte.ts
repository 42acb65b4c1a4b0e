// Which dialog is open; more than that the shell need not remember.

class Ui {
  /** The field for a user's own key, above the place to write. */
  keyOpen = $state(false);
  dialog = $state<'settings' | 'help' | 'palette' | null>(null);
}

export const ui = new Ui();
