// A picture over the page: "Search from here" answers with its key; Escape and a click beside the picture close it.
const close = () => { props.value = ''; };
const forget = (field) => {
  // Before the next caption is begun; an answer of the server would come after that.
  field.value = '';
  field.dispatchEvent(new Event('input', {bubbles: true}));
};
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-key], .inner');
  if (!target || target.className === 'inner') return;
  const key = target.dataset.key;
  close();
  if (!key) return;
  forget(document.querySelector('#caption textarea, #caption input'));
  trigger('click', {key});
  document.getElementById('reference').scrollIntoView({block: 'nearest'});
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') close(); });
watch('value', () => element.querySelector('.from')?.focus());
