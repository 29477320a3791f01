// Questions before something is changed. A question is a modal dialog: the keyboard stays in it, Escape says no, and the focus goes back to where it was.

import {h} from "./dom.js";

// Asks; `fields` are {element, read?}. `act(values)` does it, and what it throws is shown, so that it can be tried again. True: it was done.
export function ask({title, words, fields = [], yes, danger = false, no = "Keep it as it is", act}) {
  return new Promise((answer) => {
    const error = h("p", {class: "field-error", role: "alert", hidden: true});
    const confirm = h("button", {type: "submit", class: danger ? "danger solid" : "primary", text: yes});
    const refuse = h("button", {type: "button", text: no, onclick: () => dialog.close()});
    const id = `ask-${Math.random().toString(36).slice(2)}`;
    let done = false;
    const form = h("form", {method: "dialog", onsubmit: async (event) => {
      event.preventDefault();
      confirm.disabled = true;
      error.hidden = true;
      try {
        await act(fields.map((field) => field.read?.()));
        done = true;
        dialog.close();
      } catch (failure) {
        error.textContent = failure.message;
        error.hidden = false;
      } finally {
        confirm.disabled = false;
      }
    }}, h("h2", {id, text: title}), h("p", {id: `${id}-words`, text: words}), h("div", {class: "fields"}, fields.map((field) => field.element)), error,
    h("div", {class: "actions"}, refuse, confirm));
    const dialog = h("dialog", {"aria-labelledby": id, "aria-describedby": `${id}-words`}, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(done);
    });
    document.body.append(dialog);
    dialog.showModal();
    (danger ? refuse : fields[0]?.focus ?? confirm).focus();
  });
}

export function checkbox(label, checked) {
  const input = h("input", {type: "checkbox", checked});
  return {element: h("label", {class: "check"}, input, label), read: () => input.checked, focus: input};
}

export function number(label, value, least, most) {
  const input = h("input", {type: "number", min: least, max: most, step: 1, required: true, value});
  return {element: h("label", {}, label, input), read: () => Number(input.value), focus: input};
}
